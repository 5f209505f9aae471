"""A MariaDB that the suite starts from the machine's own package, shared by all workers of one run."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pymysql
from filelock import FileLock

_PATIENCE = 60.0


def found() -> bool:
    """Whether this machine has a MariaDB server."""
    return _program("mariadbd") is not None and shutil.which("mariadb-install-db") is not None


def shared(folder: Path) -> str:
    """The URL of the run's server; the first who asks starts it. `folder` is common to all workers of the run."""
    note = folder / "mariadb.url"
    with FileLock(folder / "mariadb.lock"):
        if not note.exists():
            data = Path(tempfile.mkdtemp(prefix="muxly-my-"))
            (folder / "mariadb.data").write_text(str(data))
            note.write_text(_start(data))
        return note.read_text()


def stop(folder: Path) -> None:
    """Stop the run's server, if one was started, and remove its files."""
    note = folder / "mariadb.data"
    if note.exists():
        data = Path(note.read_text())
        pid = data / "pid"
        if pid.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid.read_text()), signal.SIGKILL)
        shutil.rmtree(data, ignore_errors=True)
        note.unlink()


@contextlib.contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """The URL of a new, empty database, dropped afterwards."""
    name = f"muxly_{uuid.uuid4().hex[:16]}"
    with connect(server) as connection, connection.cursor() as cursor:
        cursor.execute(f"create database `{name}` character set utf8mb4")
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        with connect(server) as connection, connection.cursor() as cursor:
            cursor.execute(f"drop database if exists `{name}`")


def connect(url: str) -> "pymysql.connections.Connection[pymysql.cursors.Cursor]":
    """A connection that commits every statement."""
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=unquote(parts.password or ""),
        database=parts.path.lstrip("/") or None,
        autocommit=True,
    )


def _start(folder: Path) -> str:
    data, log = folder / "data", folder / "log"
    as_root = ["--user=root"] if os.geteuid() == 0 else []
    install = ["mariadb-install-db", "--no-defaults", *as_root, f"--datadir={data}", "--auth-root-authentication-method=normal"]
    installed = subprocess.run([*install, "--skip-test-db"], stdin=subprocess.DEVNULL, capture_output=True, cwd=folder)
    if installed.returncode:
        raise RuntimeError(f"mariadb-install-db failed:\n{installed.stderr.decode(errors='replace')}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = [f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/sock", f"--pid-file={folder}/pid"]
    quick = ["--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M"]
    quick += ["--sync-frm=0", "--skip-innodb-doublewrite", "--loose-innodb-flush-method=nosync"]  # nothing of it outlives the machine
    # The shell leaves the server behind on its own: it has to outlive the worker that started it, until `stop`.
    leave = ["sh", "-c", 'exec setsid "$@" >"$0" 2>&1 </dev/null &', str(log)]
    subprocess.run([*leave, _program("mariadbd") or "mariadbd", "--no-defaults", *as_root, *settings, *quick], check=True)
    url = f"mysql://root@127.0.0.1:{port}/mysql"
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            connect(url).close()
            return url
        except pymysql.err.OperationalError as error:
            if time.monotonic() > give_up:
                raise RuntimeError(f"MariaDB did not start:\n{log.read_text(errors='replace')}") from error
            time.sleep(0.05)


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/libexec")
