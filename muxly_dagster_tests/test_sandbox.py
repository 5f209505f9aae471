"""People's SQL reads the lake and touches nothing else."""

import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from muxly_dagster import sandbox
from muxly_dagster.errors import ConfigurationError, MuxlyError

ROWS = pa.table({"a": [1, 2], "s": ['{"x": "1"}', None]})


@pytest.mark.parametrize("rows", [ROWS, ds.dataset(ROWS), ROWS.to_reader()], ids=["table", "dataset", "reader"])
def test_what_is_registered_can_be_read(rows):
    with sandbox.connect() as connection:
        connection.register("rows", rows)
        assert sandbox.select(connection, "select a, s ->> 'x' as x from rows order by a;").to_pylist() == [
            {"a": 1, "x": "1"},
            {"a": 2, "x": None},
        ]


@pytest.mark.parametrize(
    "statement",
    [
        "select * from read_csv('{file}')",
        "select * from read_text('{file}')",
        "select * from '{file}'",
        "select * from glob('{folder}/*')",
        "select * from read_json('http://127.0.0.1:1/')",
        "copy (select 1) to '{folder}/out.csv'",
        "export database '{folder}/out'",
        "attach '{folder}/other.db'",
        "install httpfs",
        "load '{file}'",
        "set threads = 8",
        "set enable_external_access = true",
        "reset lock_configuration",
        "set temp_directory = '{folder}'",
    ],
)
def test_duckdb_itself_refuses_to_leave_the_sandbox(statement: str, tmp_path: Path):
    file = tmp_path / "secret.csv"
    file.write_text("password\nhunter2\n")
    with sandbox.connect() as connection, pytest.raises(MuxlyError), sandbox.explained("here"):
        connection.execute(statement.format(file=file, folder=tmp_path)).fetchall()
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_variables_of_the_program_cannot_be_read():
    hidden = pa.table({"secret": [1]})
    with sandbox.connect() as connection, pytest.raises(ConfigurationError, match="hidden does not exist"):
        sandbox.select(connection, "select * from hidden")
    assert len(hidden) == 1


def test_times_are_in_utc():
    with sandbox.connect() as connection:
        assert sandbox.select(connection, "select cast(timestamptz '2026-01-01 12:00:00+02' as text) as t").to_pylist() == [
            {"t": "2026-01-01 10:00:00+00"}
        ]


def test_a_query_that_needs_too_much_memory_fails_clearly_and_may_spill_where_a_folder_is_given(tmp_path: Path):
    sorting = (
        "select count(*) as n from (select repeat('x', 200) || (i * 7919 % 500009) as s from range(500000) t(i) order by s limit 499999)"
    )
    with sandbox.connect(memory_limit="64MB", threads=1) as connection, pytest.raises(MuxlyError, match="more memory than it may use"):
        sandbox.select(connection, sorting)
    with sandbox.connect(memory_limit="64MB", threads=1, spill=tmp_path) as connection:
        assert sandbox.select(connection, sorting).to_pylist() == [{"n": 499999}]


def test_every_thread_has_a_shared_sandbox_of_its_own():
    seen = [sandbox.shared()]
    thread = threading.Thread(target=lambda: seen.append(sandbox.shared()))
    thread.start()
    thread.join()
    assert sandbox.shared() is seen[0]
    assert seen[1] is not seen[0]


@pytest.mark.parametrize(
    "statement",
    [
        "drop table x",
        "copy x to 'y'",
        "attach 'x'",
        "install httpfs",
        "load httpfs",
        "pragma database_list",
        "set threads = 1",
        "insert into x values (1)",
        "update x set a = 1",
        "create table x as select 1",
        "select 1; select 2",
        "",
        "selec 1",
        "with x as (insert into y values (1)) select 1",
        "call pragma_version()",
        "describe x",
        "export database 'x'",
        "checkpoint",
        "vacuum",
        "explain select 1",
    ],
)
def test_only_one_select_is_a_query(statement: str):
    with pytest.raises(ConfigurationError):
        sandbox.read_query(statement)


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("select * from crm.contacts", ("crm.contacts",)),
        ("from crm.contacts", ("crm.contacts",)),
        ("select 1 as a;", ()),
        ("values (1), (2)", ()),
        ("with c as (select * from crm.contacts) select * from c join app.signups s using (email)", ("app.signups", "crm.contacts")),
        ("select * from customers where id in (select id from crm.deals)", ("crm.deals", "customers")),
        ("select * from a union all select * from b", ("a", "b")),
        ("select * from range(3) r(i), crm.x", ("crm.x",)),
    ],
)
def test_a_query_knows_the_tables_it_reads(sql: str, tables: tuple[str, ...]):
    assert sandbox.read_query(sql).tables == tables


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("amount > 10 and stage = 'won'", ("amount", "stage")),
        ('"Odd Name" is null', ("Odd Name",)),
        ("props ->> 'a' = 'b'", ("props",)),
        ("json_array_length(props -> '$.tags') > 1", ("props",)),
        ("len(list_filter([1, 2], x -> x > a)) > 0", ("a",)),
        ("len(list_filter([1, 2], lambda x: x > a)) > 0", ("a",)),
        ("len([x for x in [1, 2] if x > a]) > 0", ("a",)),
        ("case when a then b else c end", ("a", "b", "c")),
        ("created::date > current_date - interval 3 days", ("created",)),
        ("true", ()),
    ],
)
def test_an_expression_knows_the_columns_it_reads(text: str, columns: tuple[str, ...]):
    assert sandbox.read_expression(text).columns == columns


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("a >", "is not one SQL expression"),
        ("a > 1 from x", "is not one SQL expression"),
        ("a, b", "is not one SQL expression"),
        ("a > 1) or (true", "is not one SQL expression"),
        ("a; b", "2 statements"),
        ("select 1", "a subquery"),
        ("a in (select 1)", "a subquery"),
        ("exists (select 1)", "a subquery"),
        ("sum(a) > 1", "an aggregate"),
        ("count(*) > 1", "an aggregate"),
        ("row_number() over () = 1", "a window function"),
        ("*", "a star"),
        ("columns('a') > 1", r"COLUMNS\(\)"),
        ("unnest([true])", "UNNEST"),
        ("a > ?", "a parameter"),
        ("a > $limit", "a parameter"),
        ("a as b", "is not an expression"),
        ("drop table a", "is not an expression"),
        ("set a = 1", "is not an expression"),
        ("props.city = 'Rome'", "write city, or props ->> 'city'"),
    ],
)
def test_what_is_not_one_value_per_row_is_no_expression(text: str, why: str):
    with pytest.raises(ConfigurationError, match=why):
        sandbox.read_expression(text)


def test_messages_are_one_line_and_quote_no_more_of_the_query_than_duckdb_names():
    with sandbox.connect() as connection, pytest.raises(ConfigurationError) as caught, sandbox.explained("transform x"):
        connection.sql("select date '2026-01-01' + true as salt")
    assert str(caught.value).startswith("transform x: the SQL cannot run: No function matches")
    assert "salt" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "\n" not in str(caught.value)


def test_names_and_texts_are_quoted():
    assert sandbox.quote('a"b') == '"a""b"'
    assert sandbox.literal("it's") == "'it''s'"


def test_an_unknown_column_comes_with_the_nearest_known():
    assert sandbox.unknown_column("emial", ["id", "Email"]) == "there is no column emial; did you mean Email?"
    assert sandbox.unknown_column("op", ["amount", "_muxly_op"]) == "there is no column op; did you mean _muxly_op?"
    assert sandbox.unknown_column("zzz", ["id", "name"]) == "there is no column zzz; the columns are id, name"
    assert sandbox.unknown_column("zzz", []) == "there is no column zzz"
