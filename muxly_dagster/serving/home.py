"""Dagster's own home: made, migrated and held, before any of Dagster's processes opens it."""

import contextlib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from muxly_dagster.errors import BusyError, MuxlyError
from muxly_dagster.serving.processes import LOCATION
from muxly_dagster.state.troubles import usable_folder

if TYPE_CHECKING:
    import dagster as dg

_SECONDS_FOR_ANOTHER = 120


def dagster_home(home: Path, environ: Mapping[str, str]) -> Path:
    """Dagster's home: DAGSTER_HOME where it is set, else a folder in Muxly's; with a dagster.yaml that suits Muxly, where it has none.

    Raises ConfigurationError where it cannot be made.
    """
    folder = Path(environ.get("DAGSTER_HOME") or home / "dagster").absolute()
    config = folder / "dagster.yaml"
    with usable_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not config.exists():
            text = (resources.files("muxly_dagster.serving") / "dagster.yaml").read_text("utf-8")
            config.write_text(text, encoding="utf-8")
    return folder


def prepare(folder: Path) -> str:
    """Make or migrate the storage of this home; says what was done, nothing where nothing was. Raises MuxlyError.

    One process at a time: several that open a fresh home in SQLite race on its migrations.
    """
    what = f"another process has been preparing {folder} for {_SECONDS_FOR_ANOTHER} seconds"
    with _locked(folder, "prepare", _SECONDS_FOR_ANOTHER, BusyError(what, do="wait until it is through, or end it")):
        return _prepared(folder)


def _prepared(folder: Path) -> str:
    mark = folder / ".prepared"
    with opened(folder) as instance:
        if any(current != newest for current, newest in versions(instance)):
            instance.upgrade()
            done = f"migrated {folder}"
        else:
            done = "" if mark.exists() else f"made {folder}"
    mark.touch()
    return done


def versions(instance: "dg.DagsterInstance") -> list[tuple[str, str]]:
    """The migration that each of Dagster's storages stands at, and the newest one there is."""
    storages = (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
    found = [storage.alembic_version() for storage in storages if storage is not None]
    return [(str(each[0]), str(each[1])) for each in found if each is not None]


@contextlib.contextmanager
def opened(folder: Path) -> Iterator["dg.DagsterInstance"]:
    """Dagster's instance in this home. Raises MuxlyError for a dagster.yaml or a storage that cannot be used."""
    import dagster as dg  # slow to import

    try:
        instance = dg.DagsterInstance.from_config(str(folder))
    except (dg.DagsterError, dg.DagsterInvariantViolationError) as error:
        raise MuxlyError(f"Dagster cannot use {folder}: {_first_line(error)}", do=f"correct {folder / 'dagster.yaml'}") from None
    except Exception as error:  # what its database's driver raises, whichever that is
        do = f"see that the storage named in {folder / 'dagster.yaml'} is up and may be written"
        raise MuxlyError(f"Dagster's storage cannot be used: {type(error).__name__}: {_first_line(error)}", do=do) from None
    with instance:
        yield instance


@contextlib.contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Keep others from running the same on this home; a process that dies lets go at once. Raises BusyError when somebody has it."""
    do = "stop that one first, or give this one a home of its own with MUXLY_HOME"
    with _locked(folder, what, 0, BusyError(f"another {what} runs on {folder}", do=do)):
        yield


@contextlib.contextmanager
def _locked(folder: Path, name: str, seconds: float, busy: BusyError) -> Iterator[None]:
    lock = FileLock(folder / f"{name}.lock", timeout=seconds)
    with usable_folder(folder):
        try:
            lock.acquire()
        except Timeout:
            raise busy from None
    try:
        yield
    finally:
        lock.release()


def write_workspace(folder: Path, host: str, port: int) -> Path:
    """A workspace.yaml that names the code server at this address; answers where it lies."""
    path = folder / f"workspace-{port}.yaml"
    shown = host.replace("'", "")
    content = f"load_from:\n  - grpc_server: {{host: '{shown}', port: {port}, location_name: {LOCATION}}}\n"
    with usable_folder(folder):
        if not path.exists() or path.read_text("utf-8") != content:
            path.write_text(content, encoding="utf-8")
    return path


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
