"""The sql connector against real databases: what it finds there, and errors that say what to do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from muxly_dagster.connector import Batch
from muxly_dagster.connectors.sql import SqlPull
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError
from muxly_dagster_tests.connectors.databases import batches, on_mariadb, on_postgres, on_sqlite, rows, sql


def test_resolve_finds_key_and_types(postgres: str, mariadb: str, tmp_path: Path) -> None:
    table = "create table things (b int, a int, word varchar(10), primary key (a, b))"
    on_postgres(postgres, table)
    on_mariadb(mariadb, table)
    sqlite = on_sqlite(tmp_path / "db", table)
    for url in (postgres, mariadb, sqlite):
        source = sql(url)
        assert source.stream(SqlPull(stream="things")).key == ()
        assert source.resolve(SqlPull(stream="things")).key == ("a", "b")
        assert source.resolve(SqlPull(stream="x", table="things", key=["word"])).key == ("word",)
        assert source.resolve(SqlPull(stream="x", query="select * from things;")).key == ()
        assert source.resolve(SqlPull(stream="things", cursor="a")).sync == "cursor"
        (stream,) = source.streams()
        assert (stream.name, stream.key) == ("things", ("a", "b"))
        check = source.test_connection()
        assert (check.status, check.what) == ("ok", "1 table")
    assert sql(postgres).resolve(SqlPull(stream="things")).schema == pa.schema({"b": pa.int64(), "a": pa.int64(), "word": pa.string()})
    assert sql(sqlite).resolve(SqlPull(stream="things")).schema is None


def test_odd_names_are_quoted(postgres: str, mariadb: str, tmp_path: Path) -> None:
    for url, mark, run in ((postgres, '"', on_postgres), (mariadb, "`", on_mariadb)):
        run(url, f"create table {mark}or der's{mark} ({mark}se{mark * 2}lect%{mark} int, {mark}Group{mark} int)")
        run(url, f"insert into {mark}or der's{mark} values (1, 2)")
        assert rows(batches(url, table="or der's", cursor="Group")) == [{f"se{mark}lect%": 1, "Group": 2}]
    sqlite = on_sqlite(tmp_path / "d b?#%.sqlite", """create table "or der's" ("se""lect%" int)""", """insert into "or der's" values (1)""")
    assert rows(batches(sqlite.replace("?", "%3F").replace("#.", "%23."), table="or der's")) == [{'se"lect%': 1}]


def test_tables_of_another_schema_are_read_by_name_or_by_setting(postgres: str) -> None:
    on_postgres(postgres, "create schema shop", "create table shop.things (id int primary key)", "insert into shop.things values (1)")
    assert rows(batches(postgres, table="shop.things")) == [{"id": 1}]
    source = sql(postgres, "shop")
    assert rows(list(source.pull(SqlPull(stream="things"), None, None))) == [{"id": 1}]
    assert source.streams()[0].key == ("id",)


def test_only_the_named_columns_and_the_key_are_read(postgres: str) -> None:
    on_postgres(postgres, "create table things (id int primary key, a int, b int)", "insert into things values (1, 2, 3)")
    assert rows(batches(postgres, columns=["b"])) == [{"b": 3, "id": 1}]


def test_a_query_is_read_like_a_table(postgres: str, mariadb: str, tmp_path: Path) -> None:
    table, fill = "create table things (id int, word varchar(9))", "insert into things values (1, '100%'), (2, 'b')"
    on_postgres(postgres, table, fill)
    on_mariadb(mariadb, table, fill)
    for url in (postgres, mariadb, on_sqlite(tmp_path / "db", table, fill)):
        assert rows(batches(url, query="select id, word from things where word like '1%%' or word = '100%' -- all of it;")) == [
            {"id": 1, "word": "100%"}
        ]


def test_a_full_pull_sees_one_state_of_the_table(postgres: str) -> None:
    on_postgres(postgres, "create table things (id int primary key)", "insert into things select generate_series(1, 5000)")
    reading = sql(postgres).pull(SqlPull(stream="things", batch_rows=100), None, None)
    first = next(reading)
    on_postgres(postgres, "delete from things where id > 200", "insert into things values (9999)")
    assert [row["id"] for row in rows([first, *reading])] == list(range(1, 5001))


@pytest.mark.parametrize("peer", ["postgres", "mariadb", "sqlite"])
def test_a_pull_can_be_left_in_the_middle(peer: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = str(request.getfixturevalue(peer)) if peer != "sqlite" else on_sqlite(tmp_path / "db", "create table things (id int)")
    run = {"postgres": on_postgres, "mariadb": on_mariadb}.get(peer)
    digits = "(select 0 a union select 1 union select 2 union select 3 union select 4 union select 5 union select 6 union select 7)"
    fill = f"insert into things select 1 from {digits} a, {digits} b, {digits} c, {digits} d, {digits} e"
    if run:
        run(url, "create table things (id int)", fill)
    else:
        on_sqlite(tmp_path / "db", fill)
    reading: Iterator[Batch] = sql(url).pull(SqlPull(stream="things", batch_rows=10), None, None)
    assert len(next(reading).rows) == 10
    reading.close()  # type: ignore[attr-defined]
    assert sum(len(batch.rows) for batch in batches(url)) == 8**5


# ---- errors ----------------------------------------------------------------------------------------------------


def test_a_table_or_column_that_is_not_there_is_named_with_its_neighbour(postgres: str, mariadb: str, tmp_path: Path) -> None:
    table = "create table things (id int, word varchar(9))"
    on_postgres(postgres, table)
    on_mariadb(mariadb, table)
    for url in (postgres, mariadb, on_sqlite(tmp_path / "db", table)):
        for pull, hint in (
            ({"table": "thigns"}, "no table thigns; did you mean things"),
            ({"columns": ["wrd"]}, "no column wrd; did you mean word"),
            ({"cursor": "idd"}, "no column idd; did you mean id"),
            ({"key": ["wort"]}, "no column wort; did you mean word"),
            ({"query": "selekt 1"}, "correct the pull"),
        ):
            with pytest.raises(ConfigurationError, match=hint):
                batches(url, **pull)


def test_a_refused_password_asks_for_a_sign_in_and_is_never_shown(mariadb: str) -> None:
    on_mariadb(mariadb, "create user if not exists guarded identified by 'right-one'")
    url = mariadb.replace("root@", "guarded:hunter2@")
    with pytest.raises(SignInError) as error:
        batches(url)
    assert "hunter2" not in f"{error.value!r} {error.value}" and "password" in error.value.do
    assert "hunter2" not in repr(sql(url)) + str(sql(url).test_connection())


def test_not_even_the_databases_own_words_show_a_password(postgres: str) -> None:
    with pytest.raises(SignInError) as error:
        batches(postgres.replace("//postgres@", "//hunter2:hunter2@"))
    assert "hunter2" not in f"{error.value!r} {error.value}"


def test_a_missing_database_or_role_says_so(postgres: str, mariadb: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="database"):
        batches(postgres.rpartition("/")[0] + "/nowhere")
    with pytest.raises(SignInError, match="nobody_here"):
        batches(postgres.replace("//postgres", "//nobody_here:hunter2"))
    with pytest.raises(ConfigurationError, match="database"):
        batches(mariadb.rpartition("/")[0] + "/nowhere")
    with pytest.raises(ConfigurationError, match="there is no SQLite database"):
        batches(f"sqlite:///{tmp_path}/nowhere.db")
    assert not (tmp_path / "nowhere.db").exists()
    (tmp_path / "not.db").write_text("this is no database, though long enough to have a header of the right size " * 20)
    with pytest.raises(MuxlyError, match="not a database"):
        batches(f"sqlite:///{tmp_path}/not.db")


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_server_that_is_down_is_worth_another_try(scheme: str) -> None:
    source = sql(f"{scheme}://user:hunter2@127.0.0.1:1/db")
    with pytest.raises(RetryLater) as error:
        source.streams()
    assert "hunter2" not in str(error.value) and error.value.where == f"{scheme}://127.0.0.1:1/db"
    assert source.test_connection().status == "failed"


def test_a_server_that_goes_away_in_mid_read_is_worth_another_try(postgres: str) -> None:
    on_postgres(
        postgres,
        "create table things (id int, word text)",
        "insert into things select i, repeat('x', 1000) from generate_series(1, 50000) i",
    )
    reading = sql(postgres).pull(SqlPull(stream="things", batch_rows=10), None, None)
    next(reading)
    on_postgres(
        postgres,
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'muxly'  and datname = current_database()",
    )
    with pytest.raises(RetryLater):
        list(reading)


def test_a_table_that_may_not_be_read_asks_for_the_right_to(postgres: str) -> None:
    on_postgres(postgres, "create table things (id int)")
    role = "muxly_" + postgres.rpartition("_")[2]
    on_postgres(postgres, f"create role {role} login")
    try:
        with pytest.raises(SignInError, match="SELECT"):
            batches(postgres.replace("//postgres@", f"//{role}@"))
    finally:
        on_postgres(postgres, f"drop role {role}")


@pytest.mark.parametrize(
    "pull",
    [
        {"table": "a", "query": "select 1"},
        {"lookback": "1h"},
        {"cursor": "at", "lookback": "soon"},
        {"cursor": "at", "lookback": -3},
        {"query": "select :cursor"},
        {"cursor": ["at", "at"]},
        {"deletes": "keys"},
        {"cursor": "at", "deletes_every": "1d"},
        {"cursor": "at", "deletes": "keys", "deletes_every": "5"},
        {"tabel": "a"},
    ],
)
def test_settings_that_contradict_each_other_are_refused(pull: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SqlPull(stream="things", **pull)


@pytest.mark.parametrize(("column", "lookback"), [("at", 5), ("n", "5m"), ("yes", ""), ("doc", "")])
def test_cursors_that_cannot_work_are_refused(postgres: str, column: str, lookback: str | int) -> None:
    on_postgres(postgres, "create table things (id int primary key, at timestamptz, n int, yes boolean, doc jsonb)")
    with pytest.raises(ConfigurationError):
        batches(postgres, {"column": column, "value": "1"}, cursor=column, lookback=lookback)


def test_lookback_needs_a_key(postgres: str) -> None:
    on_postgres(postgres, "create table things (n int)")
    with pytest.raises(ConfigurationError, match="stored twice"):
        batches(postgres, cursor="n", lookback=5)


@pytest.mark.parametrize("url", ["oracle://x/y", "things.db", "postgresql:/x"])
def test_urls_of_other_makes_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="must begin with"):
        sql(url)
