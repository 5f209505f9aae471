"""Settings: where Muxly looks for its project and keeps its things."""

from pathlib import Path

import pytest

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.settings import Settings


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "shop" / "muxly.yaml"
    path.parent.mkdir()
    path.write_text("name: shop\n")
    return path


def test_everything_is_kept_beside_the_project_unless_told_otherwise(project: Path) -> None:
    settings = Settings.from_environ({}, project.parent)
    assert settings.project == project
    assert settings.home == project.parent / ".muxly"
    assert settings.database_url == f"sqlite:///{project.parent}/.muxly/state.db"
    assert settings.lake_url == str(project.parent / ".muxly" / "lake")


def test_the_project_is_found_from_a_folder_below_it(project: Path) -> None:
    below = project.parent / "a" / "b"
    below.mkdir(parents=True)
    assert Settings.from_environ({}, below).project == project


@pytest.mark.parametrize("name", ["muxly.yml", "muxly.json", "muxly.toml"])
def test_the_project_may_be_of_any_format(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    assert Settings.from_environ({}, tmp_path).project == tmp_path / name


def test_several_project_files_make_the_folder_the_project(project: Path) -> None:
    (project.parent / "muxly.toml").write_text("")
    settings = Settings.from_environ({}, project.parent)
    assert settings.project == project.parent
    assert settings.home == project.parent / ".muxly"


def test_the_environment_names_every_place(project: Path, tmp_path: Path) -> None:
    environ = {
        "MUXLY_PROJECT": str(project),
        "MUXLY_HOME": str(tmp_path / "home"),
        "MUXLY_DATABASE_URL": "postgresql://me:s3cret@127.0.0.1/muxly",
        "MUXLY_LAKE_URL": "s3://bucket/lake",
    }
    settings = Settings.from_environ(environ, tmp_path)
    assert (settings.project, settings.home) == (project, tmp_path / "home")
    assert (settings.database_url, settings.lake_url) == (environ["MUXLY_DATABASE_URL"], "s3://bucket/lake")
    assert "s3cret" not in repr(settings)


def test_a_folder_may_be_named_and_empty_variables_count_as_unset(project: Path, tmp_path: Path) -> None:
    settings = Settings.from_environ({"MUXLY_PROJECT": "shop", "MUXLY_HOME": "", "MUXLY_LAKE_URL": ""}, tmp_path)
    assert settings.project == project
    assert settings.home == project.parent / ".muxly"


def test_a_missing_project_says_how_to_begin_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="muxly init"):
        Settings.from_environ({}, tmp_path)


@pytest.mark.parametrize("named", ["nowhere.yaml", "empty"])
def test_a_named_project_that_is_not_there_names_the_variable(tmp_path: Path, named: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="MUXLY_PROJECT names"):
        Settings.from_environ({"MUXLY_PROJECT": named}, tmp_path)
