"""The sql connector keeps every connector's promises, on real databases: whole, and by a composite cursor with keys compared."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from muxly_dagster.connector import Connector
from muxly_dagster.testing.connectors import ConnectorContract
from muxly_dagster_tests.connectors.databases import on_mariadb, on_postgres, on_sqlite, sql
from muxly_dagster_tests.peers import mariadb as mariadb_peer

_WHOLE = {"stream": "things", "batch_rows": 2}
_BY_CURSOR = {**_WHOLE, "cursor": ["changed", "id"], "deletes": "keys"}


class Table:
    """A Provider: the table `things`. It breaks by being renamed: a database has no requests that could be counted."""

    def __init__(self, url: str, wrong_url: str, run: Callable[..., Any], pull: Mapping[str, Any], *secrets: str) -> None:
        self.pull, self.secrets = pull, secrets
        self._url, self._wrong_url, self._run = url, wrong_url, run
        self._changes = 0
        self._drifted = self._broken = False
        run("create table things (id integer not null primary key, word varchar(20), changed integer not null)")

    def connector(self, *, wrong: bool = False) -> Connector:
        return sql(self._wrong_url if wrong else self._url)

    def put(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            self._changes += 1
            more = ", 'more'" if self._drifted else ""
            self._run(f"delete from things where id = {number}", f"insert into things values ({number}, '{text}', {self._changes}{more})")

    def delete(self, number: int) -> None:
        self._run(f"delete from things where id = {number}")

    def number(self, row: Mapping[str, Any]) -> int:
        return int(row["id"])

    def text(self, row: Mapping[str, Any]) -> str:
        return str(row["word"])

    def drift(self) -> None:
        self._drifted = True
        self._run("alter table things add column extra varchar(9)")

    def fail_once(self, status: int) -> None:
        raise AssertionError("a database answers with no status")

    def break_after(self, requests: int) -> None:
        if not self._broken:
            self._run("alter table things rename to away")
            self._broken = True

    def mend(self) -> None:
        if self._broken:
            self._run("alter table away rename to things")
            self._broken = False

    def expire(self) -> None:
        raise AssertionError("a table gives out no tokens of changes")


@pytest.fixture(params=[_WHOLE, _BY_CURSOR], ids=["whole", "by_cursor"])
def settings(request: pytest.FixtureRequest) -> Mapping[str, Any]:
    """How the table is pulled."""
    found: Mapping[str, Any] = request.param
    return found


class TestPostgres(ConnectorContract):
    """Deletes are heard of either way."""

    speaks_http = False

    @pytest.fixture
    def provider(self, postgres: str, settings: Mapping[str, Any]) -> Table:
        at = postgres.replace("//postgres@", "//postgres:hunter2@")
        nobody = postgres.replace("//postgres@", "//nobody_here:hunter2@")
        return Table(at, nobody, lambda *statements: on_postgres(postgres, *statements), settings, "hunter2")


class TestMariadb(ConnectorContract):
    """As Postgres."""

    speaks_http = False

    @pytest.fixture
    def provider(self, mariadb: str, settings: Mapping[str, Any]) -> Iterator[Table]:
        name = urlsplit(mariadb).path[1:]
        user = f"u{name[-12:]}"
        on_mariadb(mariadb, f"create user {user} identified by 'right-one'", f"grant select, show view on `{name}`.* to {user}")
        at, wrong = (mariadb.replace("//root@", f"//{user}:{password}@") for password in ("right-one", "hunter2"))
        yield Table(at, wrong, lambda *statements: on_mariadb(mariadb, *statements), settings, "right-one", "hunter2")
        with mariadb_peer.connect(mariadb) as connection, connection.cursor() as cursor:
            cursor.execute(f"drop user {user}")


class TestSqlite(ConnectorContract):
    """A file: whoever can read it is signed in."""

    speaks_http = signs_in = False

    @pytest.fixture
    def provider(self, tmp_path: Path, settings: Mapping[str, Any]) -> Table:
        url = f"sqlite:///{tmp_path}/things.db"
        return Table(url, url, lambda *statements: on_sqlite(tmp_path / "things.db", *statements), settings)
