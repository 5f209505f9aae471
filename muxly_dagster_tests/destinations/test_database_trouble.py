"""When the database does not want to: wrong passwords, missing rights, a Postgres that goes away, a full or locked file."""

import contextlib
import os
import select
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from muxly_dagster.errors import ConfigurationError, RetryLater, SignInError
from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.warehouse import Server, database

# ---- when the other side does not want to


@contextlib.contextmanager
def peer_that_answers(answer: bytes) -> Iterator[int]:
    """A server that reads what a client says first, answers and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_a_wrong_password_is_a_failed_sign_in_and_is_not_repeated_to_anybody() -> None:
    fields = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "me"\0\0'
    with peer_that_answers(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields) as port:
        destination = database(url=f"postgresql://me:hunter2%40home@127.0.0.1:{port}/x?sslmode=disable")
        with pytest.raises(SignInError, match="password authentication failed") as caught:
            destination.deliver(delivery([{"id": 1}]))
    assert "hunter2" not in repr(caught.value) + str(caught.value) + repr(destination)
    assert caught.value.__suppress_context__


def test_a_user_that_does_not_exist_is_a_failed_sign_in(postgres_server: Server) -> None:
    parts = urlsplit(postgres_server.url)
    url = f"postgresql://nobody_{os.getpid()}:hunter2@{parts.netloc.rpartition('@')[2]}{parts.path}?{parts.query}"
    with pytest.raises(SignInError):
        database(url=url).deliver(delivery([{"id": 1}]))
    check = database(url=url).check()
    assert check.status == "failed"
    assert "hunter2" not in repr(check)


def test_a_database_that_does_not_exist_is_a_mistake_in_the_configuration(postgres_server: Server) -> None:
    head, _, query = postgres_server.url.partition("?")
    with pytest.raises(ConfigurationError, match='database "nowhere" does not exist'):
        database(url=f"{head.rpartition('/')[0]}/nowhere?{query}").deliver(delivery([{"id": 1}]))


def test_missing_rights_are_for_a_person_to_grant(postgres_server: Server) -> None:
    role = f"reader_{os.getpid()}_{threading.get_ident()}"
    postgres_server.run(f"create role {role} login")
    try:
        parts = urlsplit(postgres_server.url)
        destination = database(url=f"postgresql://{role}@{parts.netloc.rpartition('@')[2]}{parts.path}?{parts.query}")
        with pytest.raises(ConfigurationError, match="permission denied"):
            destination.deliver(delivery([{"id": 1}]))
        check = destination.check()
        assert check.status == "failed"
        assert f"GRANT CREATE ON SCHEMA public TO {role};" in check.what
    finally:
        postgres_server.run(f"drop role {role}")


class Proxy:
    """Passes bytes between a client and Postgres, and cuts the line once so many bytes came from the client."""

    def __init__(self, host: str, port: int, cut_after: int) -> None:
        self._to, self.cut_after = (host, port), cut_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        # Closing alone would leave the thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, socket.create_connection(self._to) as server, contextlib.suppress(OSError):
                    self._pass_on(client, server)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        sent = 0
        while True:
            ready, _, _ = select.select([client, server], [], [])
            for side in ready:
                data = side.recv(65536)
                if not data:
                    return
                (server if side is client else client).sendall(data)
                sent += len(data) if side is client else 0
                if sent > self.cut_after:
                    return


@pytest.fixture
def cut_line(postgres: str) -> Iterator[Callable[[int], str]]:
    opened: list[Proxy] = []
    parts = urlsplit(postgres)
    host = parts.hostname or ""
    if not host:
        pytest.skip("this Postgres listens on a socket file only")

    def cut(after: int) -> str:
        proxy = Proxy(host, parts.port or 5432, after)
        opened.append(proxy)
        return f"postgresql://{parts.username}:{quote(parts.password or '')}@127.0.0.1:{proxy.port}{parts.path}?sslmode=disable"

    yield cut
    for proxy in opened:
        proxy.close()


@pytest.mark.parametrize("cut_after", [0, 300, 100_000, 400_000])
def test_a_postgres_that_goes_away_in_mid_delivery_loses_and_doubles_nothing(
    postgres_server: Server, cut_line: Callable[[int], str], cut_after: int
) -> None:
    stretch = delivery([{"id": n, "text": "x" * 500} for n in range(2_000)])
    with pytest.raises(RetryLater, match=r"cannot be reached|could not finish"):
        database(url=cut_line(cut_after), mode="append").deliver(stretch)
    destination = postgres_server.destination(mode="append")
    assert destination.position(stretch.id, stretch.table_id) is None
    assert destination.deliver(stretch).accepted == 2_000
    assert destination.deliver(stretch).detail["repeated"]
    assert len(postgres_server.rows()) == 2_000


def test_a_backend_that_is_killed_asks_for_another_time(postgres_server: Server) -> None:
    """The delivery waits for the table's lock until its backend is shot down."""
    with psycopg.connect(postgres_server.url, autocommit=True) as other, ThreadPoolExecutor(1) as threads:
        other.execute("select pg_advisory_lock(hashtextextended('muxly .crm_deals', 0))")
        future = threads.submit(postgres_server.destination().deliver, delivery([{"id": 1}]))
        waiting = (
            "select pid from pg_stat_activity where application_name = 'muxly' and wait_event = 'advisory' and datname = current_database()"
        )
        while not (found := other.execute(waiting).fetchone()):
            assert not future.done()
        other.execute("select pg_terminate_backend(%s)", [found[0]])
        with pytest.raises(RetryLater):
            future.result()
    assert postgres_server.destination().deliver(delivery([{"id": 1}])).accepted == 1


def test_a_peer_that_is_no_postgres_is_reported_without_a_traceback() -> None:
    with peer_that_answers(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        check = database(url=f"postgresql://a:secret@127.0.0.1:{port}/x?sslmode=disable").check()
    assert check.status == "failed"
    assert "secret" not in repr(check)


def test_a_sqlite_file_that_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("dear diary, " * 1000)
    destination = database(url=f"sqlite:///{tmp_path / 'notes.txt'}")
    with pytest.raises(ConfigurationError, match="no SQLite database"):
        destination.deliver(delivery([{"id": 1}]))
    assert destination.check().status == "failed"
    assert (tmp_path / "notes.txt").read_text().startswith("dear diary")


def test_checking_a_sqlite_file_does_not_create_it(tmp_path: Path) -> None:
    destination = database(url=f"sqlite:///{tmp_path / 'new' / 'warehouse.db'}")
    assert destination.check().status == "ok"
    assert destination.position("a.b", "c") is None
    assert list(tmp_path.iterdir()) == []


def test_a_full_sqlite_disk_asks_for_room(sqlite_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself is told to stop growing the file, which it reports as it does a full disk."""
    connect = sqlite3.connect

    def small(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.execute("pragma max_page_count = 20")
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(RetryLater, match="full"):
        sqlite_server.destination().deliver(delivery([{"id": n, "text": "x" * 500} for n in range(1_000)]))
    monkeypatch.undo()
    assert sqlite_server.destination().position("big_deals.warehouse", "0b8e1f9c") is None
    assert sqlite_server.destination().deliver(delivery([{"id": 1}])).accepted == 1


def test_a_locked_sqlite_file_asks_for_another_time(sqlite_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from muxly_dagster.destinations.database import sqlite

    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.01)
    sqlite_server.destination().deliver(delivery([{"id": 1}]))
    with contextlib.closing(sqlite3.connect(sqlite_server.url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(RetryLater, match="another program"):
            sqlite_server.destination().deliver(delivery([{"id": 2}], after=1))
        other.execute("rollback")
    assert sqlite_server.destination().deliver(delivery([{"id": 2}], after=1)).accepted == 1


def test_a_read_only_sqlite_file_is_for_a_person_to_change(sqlite_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened read-only, because a file's mode does not stop root, who may run these tests."""
    sqlite_server.run("create table crm_deals (id bigint primary key)")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda file, **options: connect(f"file:{file}?mode=ro", uri=True, **options))
    with pytest.raises(ConfigurationError, match="read-only"):
        sqlite_server.destination().deliver(delivery([{"id": 1}]))
