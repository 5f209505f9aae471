"""Large tables by ranges of their key: every row once, one state of the data, and a broken connection costs one range."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from muxly_dagster.connector import Batch
from muxly_dagster.connectors.sql import SqlPull
from muxly_dagster.connectors.sql.ranges import Ranges, splits
from muxly_dagster.connectors.sql.source import Source
from muxly_dagster.connectors.sql.threads import side_by_side
from muxly_dagster.errors import RetryLater
from muxly_dagster_tests.connectors.databases import on_mariadb, on_postgres, on_sqlite, rows, sql

_ROWS = 2000
_SPLIT: dict[str, Any] = {"chunk_rows": 300, "batch_rows": 100, "connections": 3}
_OURS = "from pg_stat_activity where application_name = 'muxly' and datname = current_database()"


def fill(url: str, key: str = "id int", value: str = "i", more: str = "") -> None:
    """A table of 2000 rows whose key grows with their places."""
    create = f"create table things ({key} not null, word varchar(200), primary key ({more or key.partition(' ')[0]}))"
    if url.startswith("mysql"):
        digits = "with recursive n as (select 1 i union all select i + 1 from n where i < 2000)"
        on_mariadb(url, create, "set max_recursive_iterations = 3000", f"insert into things {digits} select {value}, 'word' from n")
        on_mariadb(url, "analyze table things")
    else:
        on_postgres(
            url, create, f"insert into things select {value}, repeat('x', 200) from generate_series(1, {_ROWS}) i", "analyze things"
        )


def pulling(url: str, **more: Any) -> Iterator[Batch]:
    return sql(url).pull(SqlPull(stream="things", **(_SPLIT | more)), None, None)


def is_split(url: str, **pull: Any) -> bool:
    source = sql(url)
    with source._open() as database:
        return splits(database, Source(database, SqlPull(stream="things", **(_SPLIT | pull)), ""))


@pytest.mark.parametrize("peer", ["postgres", "mariadb"])
@pytest.mark.parametrize(
    ("key", "value", "more"),
    [("id bigint", "i", ""), ("id varchar(20)", "concat('K', 10000 + i)", ""), ("a int not null, b int", "i div 100, i mod 100", "a, b")],
    ids=["number", "text", "two columns"],
)
def test_every_row_is_read_once(peer: str, key: str, value: str, more: str, request: pytest.FixtureRequest) -> None:
    url = str(request.getfixturevalue(peer))
    fill(url, key, value.replace(" div ", " / ").replace(" mod ", " % ") if peer == "postgres" else value, more)
    assert is_split(url)
    found = rows(list(pulling(url)))
    names = more.split(", ") if more else ["id"]
    assert len({tuple(row[name] for name in names) for row in found}) == len(found) == _ROWS
    assert found[0].keys() == {*names, "word"}


def test_the_ranges_are_as_large_as_asked_for(postgres: str) -> None:
    fill(postgres)
    with sql(postgres)._open() as database:
        ranges = Ranges(Source(database, SqlPull(stream="things", **_SPLIT), ""))
        taken = [ranges.take(database) for _ in range(8)]
    assert taken[:3] == [(None, ("300",)), (("300",), ("600",)), (("600",), ("900",))]
    assert taken[6:] == [(("1800",), None), None]


def test_small_tables_other_keys_and_scattered_rows_are_read_in_one_go(postgres: str, tmp_path: Path) -> None:
    fill(postgres)
    assert is_split(postgres)
    assert not is_split(postgres, chunk_rows=_ROWS)
    assert not is_split(postgres, key=["word"])
    assert not is_split(postgres, key=[])
    on_postgres(
        postgres, "create table scattered as select * from things order by md5(id::text)", "alter table scattered add primary key (id)"
    )
    on_postgres(postgres, "analyze scattered")
    assert not is_split(postgres, table="scattered")
    assert not is_split(on_sqlite(tmp_path / "db", "create table things (id integer primary key, word text)"), chunk_rows=1)


def test_all_connections_see_one_state(postgres: str) -> None:
    fill(postgres)
    reading = pulling(postgres)
    first = next(reading)
    with psycopg.connect(postgres, autocommit=True) as connection:
        assert connection.execute(f"select count(*) {_OURS}").fetchall()[0][0] >= 3
        connection.execute("delete from things where id > 100")
        connection.execute("insert into things values (999999, 'late')")
    assert sorted(row["id"] for row in rows([first, *reading])) == list(range(1, _ROWS + 1))


def test_a_connection_that_breaks_reads_its_range_again(postgres: str) -> None:
    fill(postgres, value="i")
    reading = pulling(postgres, batch_rows=10, connections=1)
    first = next(reading)
    on_postgres(postgres, f"select pg_terminate_backend(pid) {_OURS}")
    found = Counter(row["id"] for row in rows([first, *reading]))
    assert sorted(found) == list(range(1, _ROWS + 1))


def test_a_database_that_does_not_come_back_is_worth_another_try(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxly_dagster.connectors.sql.ranges._WAITS", (0.0, 0.01))
    fill(postgres)
    reading = pulling(postgres, batch_rows=1)
    next(reading)
    name = postgres.rpartition("/")[2]
    with psycopg.connect(postgres.rpartition("/")[0] + "/postgres", autocommit=True) as connection:
        connection.execute(f'alter database "{name}" allow_connections false')
        connection.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")
    with pytest.raises(RetryLater):
        list(reading)


def test_leaving_early_ends_every_connection(postgres: str) -> None:
    fill(postgres)
    reading = pulling(postgres)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    with psycopg.connect(postgres, autocommit=True) as connection:
        for _ in range(200):  # the server notices a moment later
            if not connection.execute(f"select count(*) {_OURS}").fetchall()[0][0]:
                return
            time.sleep(0.05)
    raise AssertionError("a connection stayed open")


def test_the_first_error_of_any_ends_the_others() -> None:
    ended: list[str] = []

    def endless() -> Any:
        try:
            while True:
                yield 1
        finally:
            ended.append("endless")

    def failing() -> Any:
        yield 2
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(side_by_side([endless(), failing()], lambda: ended.append("given up")))
    assert sorted(ended) == ["endless", "given up"]
