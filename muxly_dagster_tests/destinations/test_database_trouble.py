"""When a database server does not want to: wrong passwords, missing rights, a server that goes away, locks, a driver that is missing."""

import contextlib
import os
import re
import select
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pymysql
import pytest

from muxly_dagster.errors import ConfigurationError, RetryLater, SignInError
from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.warehouse import Server, database
from muxly_dagster_tests.peers import mariadb


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
    """Passes bytes between a client and a server, and cuts the line once so many bytes came from the client."""

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
def cut_line(request: pytest.FixtureRequest) -> Iterator[Callable[[int], str]]:
    opened: list[Proxy] = []
    maria = "mariadb" in request.fixturenames
    parts = urlsplit(request.getfixturevalue("mariadb" if maria else "postgres"))
    host = parts.hostname or ""
    if not host:
        pytest.skip("this Postgres listens on a socket file only")

    def cut(after: int) -> str:
        proxy = Proxy(host, parts.port or (3306 if maria else 5432), after)
        opened.append(proxy)
        if maria:
            return f"mysql://{parts.username}:{quote(parts.password or '')}@127.0.0.1:{proxy.port}{parts.path}"
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


@pytest.mark.parametrize("cut_after", [0, 300, 100_000, 400_000])
def test_a_mariadb_that_goes_away_in_mid_delivery_loses_and_doubles_nothing(
    mariadb_server: Server, cut_line: Callable[[int], str], cut_after: int
) -> None:
    stretch = delivery([{"id": n, "text": "x" * 500} for n in range(2_000)])
    with pytest.raises(RetryLater, match=r"cannot be reached|could not finish"):
        database(url=cut_line(cut_after), mode="append").deliver(stretch)
    destination = mariadb_server.destination(mode="append")
    assert destination.position(stretch.id, stretch.table_id) is None
    assert destination.deliver(stretch).accepted == 2_000
    assert destination.deliver(stretch).detail["repeated"]
    assert len(mariadb_server.rows()) == 2_000


@pytest.mark.parametrize("kind", ["mariadb", "generic_mariadb"])
def test_a_mariadb_user_who_may_only_read_is_told_so(request: pytest.FixtureRequest, kind: str) -> None:
    server: Server = request.getfixturevalue(f"{kind}_server")
    user = f"reader_{os.getpid()}_{threading.get_ident()}"[:60]
    parts = urlsplit(server.url)
    server.run(f"create user {user}@'%' identified by 'hunter2'")
    try:
        server.run(f"grant select on *.* to {user}@'%'")
        destination = database(url=f"{parts.scheme}://{user}:hunter2@{parts.netloc.rpartition('@')[2]}{parts.path}")
        with pytest.raises(ConfigurationError, match="denied") as caught:
            destination.deliver(delivery([{"id": 1}]))
        assert "grant" in str(caught.value)
        if kind == "mariadb":
            assert destination.check().status == "failed"
    finally:
        server.run(f"drop user {user}@'%'")


@pytest.mark.parametrize("kind", ["mariadb", "generic_mariadb", "generic_postgres"])
def test_a_wrong_user_is_a_failed_sign_in_and_shows_no_secret(request: pytest.FixtureRequest, kind: str) -> None:
    server: Server = request.getfixturevalue(f"{kind}_server")
    parts = urlsplit(server.url)
    destination = database(url=f"{parts.scheme}://nobody_{os.getpid()}:hunter2%40home@{parts.netloc.rpartition('@')[2]}{parts.path}")
    with pytest.raises(SignInError) as caught:
        destination.deliver(delivery([{"id": 1}]))
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + repr(destination) + repr(destination.check())
    assert destination.check().status == "failed"


def test_a_mysql_database_that_does_not_exist_is_a_mistake_in_the_configuration(mariadb_server: Server) -> None:
    with pytest.raises(ConfigurationError, match="Unknown database 'nowhere'"):
        database(url=f"{mariadb_server.url.rpartition('/')[0]}/nowhere").deliver(delivery([{"id": 1}]))
    with pytest.raises(ConfigurationError, match="the port in `url`") as caught:
        database(url="mysql://me:hun/ter2@db/x").deliver(delivery([{"id": 1}]))
    assert "hun" not in "".join(traceback.format_exception(caught.value)).replace("hun/ter2@db", "")
    with pytest.raises(ConfigurationError, match="has no option colour"):
        database(url=f"{mariadb_server.url}?colour=red").deliver(delivery([{"id": 1}]))


def test_a_mysql_row_that_somebody_else_holds_asks_for_another_time(mariadb_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from muxly_dagster.destinations.database import mysql

    monkeypatch.setattr(mysql, "_MODE", mysql._MODE + "', SESSION innodb_lock_wait_timeout = 1, SESSION sql_mode = '" + mysql._MODE)
    destination = mariadb_server.destination()
    destination.deliver(delivery([{"id": 1, "n": 1}]))
    with contextlib.closing(mariadb.connect(mariadb_server.url)) as other:
        other.begin()
        other.cursor().execute("update crm_deals set n = 5")
        with pytest.raises(RetryLater, match="[Ll]ock wait timeout"):
            destination.deliver(delivery([{"id": 1, "n": 2}], after=1))
        other.rollback()
    assert destination.deliver(delivery([{"id": 1, "n": 2}], after=1)).accepted == 1
    assert mariadb_server.rows() == [{"id": 1, "n": 2}]


def test_a_mysql_connection_that_is_killed_asks_for_another_time(mariadb_server: Server) -> None:
    """The delivery waits for a row until its connection is shot down."""
    destination = mariadb_server.destination(mode="append")
    destination.deliver(delivery([{"id": 1}]))
    with contextlib.closing(mariadb.connect(mariadb_server.url)) as other, ThreadPoolExecutor(1) as threads, other.cursor() as found:
        other.begin()
        found.execute("select * from _muxly_offsets for update")
        future = threads.submit(destination.deliver, delivery([{"id": 2}], after=1))
        waiting = "select id from information_schema.processlist where info like 'UPDATE `_muxly_offsets`%' and db = database()"
        while not (found.execute(waiting) and (killed := found.fetchone())):
            assert not future.done()
        found.execute(f"kill {killed[0]}")
        with pytest.raises(RetryLater):
            future.result()
        other.rollback()
    assert destination.deliver(delivery([{"id": 2}], after=1)).accepted == 1
    assert [r["id"] for r in mariadb_server.rows()] == [1, 2]


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_of_two_that_block_each_other_none_loses_anything(request: pytest.FixtureRequest, kind: str) -> None:
    """The delivery holds one row and wants the other; somebody else the other way round. One of the two is sent away."""
    server: Server = request.getfixturevalue(f"{kind}_server")
    destination = server.destination()
    destination.deliver(delivery([{"id": 1, "n": 1}, {"id": 2, "n": 1}]))
    other: Any = psycopg.connect(server.url) if kind == "postgres" else mariadb.connect(server.url)
    with contextlib.closing(other), ThreadPoolExecutor(1) as threads:
        cursor = other.cursor()
        if kind == "mariadb":
            other.begin()
        cursor.execute("update crm_deals set n = 5 where id = 2")
        future = threads.submit(destination.deliver, delivery([{"id": 1, "n": 2}, {"id": 2, "n": 2}], after=2))
        waits = (
            "select 1 from pg_stat_activity where application_name = 'muxly' and wait_event_type = 'Lock' and datname = current_database()"
            if kind == "postgres"
            # Not from innodb_trx, which is a cache that does not change while somebody keeps reading it.
            else "select 1 from information_schema.global_status where variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS' and variable_value"
        )
        while not server.run(waits):
            assert not future.done()
        try:
            cursor.execute("update crm_deals set n = 5 where id = 1")
            other.rollback()
            sent_away = False
        except (psycopg.Error, pymysql.MySQLError):
            other.rollback()
            sent_away = True
        if sent_away:
            assert future.result().accepted == 2
        else:
            with contextlib.suppress(RetryLater):
                future.result()
    destination.deliver(delivery([{"id": 1, "n": 2}, {"id": 2, "n": 2}], after=2))
    assert [r["n"] for r in server.rows()] == [2, 2]


_KILLED = """
import os, sys
from muxly_dagster.destinations.database import Database
from muxly_dagster.destinations.database import writing
from muxly_dagster.testing import delivery
where, url = sys.argv[1:]
if where == "before":  # everything is written, nothing committed
    set_offset = writing._set_offset
    def killed(*arguments):
        set_offset(*arguments)
        os.kill(os.getpid(), 9)
    writing._set_offset = killed
Database(url=url, mode="append").deliver(delivery([{"id": 1}, {"id": 2}]))
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_process_that_is_killed_around_its_commit_loses_and_doubles_nothing(server: Server, where: str) -> None:
    """Killed after the commit, the ledger has not heard of it: the position has."""
    if server.generic and server.kind != "sqlite":
        pytest.skip("the child knows these addresses by their own dialects")
    child = subprocess.run([sys.executable, "-c", _KILLED, where, server.url], capture_output=True)
    assert child.returncode == -9, child.stderr.decode()
    destination = server.destination(mode="append")
    assert destination.position("big_deals.warehouse", "0b8e1f9c") == (2 if where == "after" else None)
    receipt = destination.deliver(delivery([{"id": 1}, {"id": 2}, {"id": 3}]))
    assert (receipt.accepted, receipt.detail["rows_written"]) == (3, 1 if where == "after" else 3)
    assert [r["id"] for r in server.rows()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("url", "said", "do"),
    [
        ("mssql+pyodbc://me:hunter2@db/x", "the driver of mssql+pyodbc:// is not installed", "pip install pyodbc"),
        ("oracle+oracledb://me:hunter2@db/x", "the driver of oracle+oracledb:// is not installed", "pip install oracledb"),
        ("snowflake://me:hunter2@db/x", "SQLAlchemy knows no database snowflake://", "pip install snowflake-sqlalchemy"),
        ("colours://me:hunter2@db/x", "SQLAlchemy knows no database colours://", "correct `url`"),
        ("mssql+pymssql://me:hunter2@db/x", "the driver of mssql+pymssql:// is not installed", "pip install pymssql"),
        ("mysql+pymysql+more://me:hunter2@db:port/x", "no address that SQLAlchemy can use", "correct `url`"),
    ],
)
def test_a_driver_that_is_missing_is_named(url: str, said: str, do: str) -> None:
    destination = database(url=url)
    with pytest.raises(ConfigurationError, match=re.escape(said)) as caught:
        destination.deliver(delivery([{"id": 1}]))
    check = destination.check()
    assert do in str(caught.value) and check.status == "failed" and do in check.what + check.do
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + repr(check)


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
