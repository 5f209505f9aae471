"""Where Muxly finds its project and keeps its things: the MUXLY_* environment, read once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from muxly_dagster.errors import ConfigurationError

PROJECT_FILES = ("muxly.yaml", "muxly.yml", "muxly.json", "muxly.toml")


@dataclass(frozen=True, slots=True)
class Settings:
    """The places one Muxly works with.

    `project` is the muxly.yaml (.yml, .json, .toml), or the folder where there are several of them; `home` the folder for what
    Muxly itself keeps, `database_url` the SQL database that remembers cursors and receipts, `lake_url` the folder or bucket of
    the lake.
    """

    project: Path
    home: Path
    database_url: str
    lake_url: str

    def __repr__(self) -> str:
        """Without the database's URL, which may hold a password."""
        return f"Settings(project={str(self.project)!r}, home={str(self.home)!r}, lake_url={self.lake_url!r})"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], start: Path | None = None) -> "Settings":
        """Settings from MUXLY_PROJECT, MUXLY_HOME, MUXLY_DATABASE_URL and MUXLY_LAKE_URL; an empty variable counts as unset.

        `start` is where the search for a project begins (default: the current folder). Raises ConfigurationError when there is none.
        """
        start = (start or Path.cwd()).absolute()
        named = environ.get("MUXLY_PROJECT", "")
        project = _project_at(start / Path(named).expanduser()) if named else _nearest_project(start)
        home_name = environ.get("MUXLY_HOME", "")
        home = start / Path(home_name).expanduser() if home_name else (project if project.is_dir() else project.parent) / ".muxly"
        return cls(
            project=project,
            home=home,
            database_url=environ.get("MUXLY_DATABASE_URL", "") or f"sqlite:///{(home / 'state.db').as_posix()}",
            lake_url=environ.get("MUXLY_LAKE_URL", "") or str(home / "lake"),
        )


def _project_at(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise ConfigurationError(f"MUXLY_PROJECT names {path}, which does not exist.", do="correct MUXLY_PROJECT or unset it")
    found = _project_in(path)
    if found is None:
        raise ConfigurationError(
            f"MUXLY_PROJECT names the folder {path}, which holds no {', '.join(PROJECT_FILES[:-1])} or {PROJECT_FILES[-1]}.",
            do=f"run `muxly init {path}` or correct MUXLY_PROJECT",
        )
    return found


def _nearest_project(start: Path) -> Path:
    for folder in (start, *start.parents):
        if found := _project_in(folder):
            return found
    raise ConfigurationError(
        f"There is no muxly.yaml in {start} or any folder above it.",
        do="run `muxly init .` to begin one here, or set MUXLY_PROJECT to an existing one",
    )


def _project_in(folder: Path) -> Path | None:
    found = [folder / name for name in PROJECT_FILES if (folder / name).is_file()]
    return (found[0] if len(found) == 1 else folder) if found else None
