"""Dagster's home: made once whoever comes first, migrated where it is old, held by one supervisor, and runs of killed processes told."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from muxly_dagster.errors import BusyError, ConfigurationError, MuxlyError
from muxly_dagster.serving import home
from muxly_dagster.serving.orphans import fail_orphans

ROOT = Path(__file__).parents[2]
PREPARE = "import sys; from pathlib import Path; from muxly_dagster.serving import home; print(home.prepare(Path(sys.argv[1])))"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that two processes made at the same time."""
    folder = home.dagster_home(tmp_path_factory.mktemp("muxly"), {})
    command = [sys.executable, "-c", PREPARE, str(folder)]
    together = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=200)[0] for process in together)
    assert said == ["\n", f"made {folder}\n"]
    return folder


def test_two_processes_that_come_at_once_make_one_home(prepared: Path) -> None:
    with home.opened(prepared) as instance:
        assert all(current == newest for current, newest in home.versions(instance))
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 4  # type: ignore[union-attr]


def test_an_old_storage_is_migrated(prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    home.dagster_home(tmp_path, {"DAGSTER_HOME": str(folder)})
    home.prepare(folder)
    database = next(folder.rglob("schedules.db"))
    with closing(sqlite3.connect(database)) as connection, connection:
        [newest] = connection.execute("select version_num from alembic_version").fetchone()
        connection.execute("alter table jobs drop column selector_id")
        connection.execute("drop table instigators")
        connection.execute("delete from alembic_version")
    assert home.prepare(folder) == f"migrated {folder}"
    with home.opened(folder) as instance:
        assert {current for current, _ in home.versions(instance)} >= {newest}
    assert home.prepare(folder) == ""


def test_history_is_kept_in_postgres_as_the_page_on_operating_says(tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "operating.md").read_text("utf-8")
    (tmp_path / "dagster.yaml").write_text(page.split("```yaml dagster\n")[1].split("```")[0], "utf-8")
    monkeypatch.setenv("DAGSTER_DATABASE_URL", postgres.replace("postgresql://", "postgresql+psycopg2://"))

    home.prepare(tmp_path)
    assert home.prepare(tmp_path) == ""
    with home.opened(tmp_path) as instance:
        assert instance.storage_directory() and not list(tmp_path.rglob("*.db")), "nothing of it lies in SQLite"
        assert all(current == newest for current, newest in home.versions(instance))


def test_a_dagster_yaml_of_ones_own_is_left_alone_and_one_that_is_wrong_is_told(tmp_path: Path) -> None:
    config = tmp_path / "dagster" / "dagster.yaml"
    config.parent.mkdir()
    config.write_text("run_queue:\n  dequeue_interval_secs: 1\n")
    folder = home.dagster_home(tmp_path, {})

    assert config.read_text() == "run_queue:\n  dequeue_interval_secs: 1\n"
    with pytest.raises(MuxlyError, match="Dagster cannot use") as raised:
        home.prepare(folder)
    assert str(config) in raised.value.do


def test_the_instance_of_this_repository_is_the_one_that_homes_are_given() -> None:
    def settings(path: Path) -> str:
        return "\n".join(line for line in path.read_text("utf-8").splitlines()[1:])

    assert settings(ROOT / "dagster.yaml") == settings(ROOT / "muxly_dagster" / "serving" / "dagster.yaml")


def test_one_supervisor_holds_a_home(tmp_path: Path) -> None:
    with home.held(tmp_path, "supervisor"), pytest.raises(BusyError, match="another supervisor"), home.held(tmp_path, "supervisor"):
        pass
    with home.held(tmp_path, "supervisor"):
        pass


def test_a_home_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot keep its things here"):
        home.dagster_home(tmp_path / "file", {})


@dg.op
def wait() -> None:
    """Never runs."""


@dg.job
def waits() -> None:
    wait()


def test_runs_of_a_code_server_that_is_gone_are_told_and_others_are_left_alone(prepared: Path) -> None:
    with home.opened(prepared) as instance:

        def run(status: dg.DagsterRunStatus, port: int | None) -> str:
            tags = {} if port is None else {".dagster/grpc_info": json.dumps({"host": "127.0.0.1", "port": port})}
            return instance.create_run_for_job(waits, status=status, tags=tags).run_id

        started, canceling = run(dg.DagsterRunStatus.STARTED, 1), run(dg.DagsterRunStatus.CANCELING, 1)
        elsewhere, by_hand = run(dg.DagsterRunStatus.STARTED, 2), run(dg.DagsterRunStatus.STARTED, None)
        ended = run(dg.DagsterRunStatus.SUCCESS, 1)

        assert set(fail_orphans(instance, lambda host, port: (host, port) == ("127.0.0.1", 1))) == {started, canceling}
        status = {each: instance.get_run_by_id(each).status for each in (started, canceling, elsewhere, by_hand, ended)}  # type: ignore[union-attr]
        assert status == {
            started: dg.DagsterRunStatus.FAILURE,
            canceling: dg.DagsterRunStatus.CANCELED,
            elsewhere: dg.DagsterRunStatus.STARTED,
            by_hand: dg.DagsterRunStatus.STARTED,
            ended: dg.DagsterRunStatus.SUCCESS,
        }
        assert fail_orphans(instance, lambda host, port: port == 1) == []
