"""Rows in the binary form of COPY are the rows that PostgreSQL itself makes of their text."""

import datetime as dt
import decimal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxly_dagster import records
from muxly_dagster.destinations.database import postgres_binary as binary
from muxly_dagster.errors import RecordRefused
from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.warehouse import Server

D = decimal.Decimal

COLUMNS: dict[str, tuple[pa.DataType, str, st.SearchStrategy[Any]]] = {
    "a": (pa.bool_(), "boolean", st.booleans()),
    "b": (pa.int64(), "bigint", st.integers(-(2**63), 2**63 - 1)),
    "c": (pa.float64(), "double precision", st.floats(allow_nan=False)),
    "d": (pa.decimal128(18, 5), "numeric(18,5)", st.decimals(-(10**13) + 1, 10**13 - 1, places=5)),
    "e": (pa.decimal128(4, 4), "numeric(4,4)", st.decimals(D("-0.9999"), D("0.9999"), places=4)),
    "f": (pa.decimal128(7, 0), "numeric(7,0)", st.decimals(-9_999_999, 9_999_999, places=0)),
    "g": (pa.string(), "text", st.text(st.characters(exclude_characters="\0", codec="utf-8"))),
    "h": (pa.string(), "character varying", st.text(st.characters(exclude_characters="\0", codec="utf-8"))),
    "i": (pa.binary(), "bytea", st.binary()),
    "j": (pa.date32(), "date", st.dates()),
    "k": (records.TIMESTAMP, "timestamp with time zone", st.datetimes(timezones=st.just(dt.UTC), min_value=dt.datetime(1, 1, 2))),
}
ROWS = st.lists(st.fixed_dictionaries({name: st.none() | values for name, (_, _, values) in COLUMNS.items()}), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, cut=st.integers(0, 5))
def test_every_value_is_read_as_it_was(postgres: str, rows: list[dict[str, Any]], cut: int) -> None:
    batch = pa.RecordBatch.from_pylist(rows, pa.schema([(name, type_) for name, (type_, _, _) in COLUMNS.items()])).slice(cut)
    types = {name: type_ for name, (_, type_, _) in COLUMNS.items()}
    assert binary.writes(batch.schema, types)
    with psycopg.connect(postgres) as connection:
        connection.execute(f"create temporary table t ({', '.join(f'{name} {type_}' for name, type_ in types.items())})")
        connection.execute("set timezone = 'UTC'")
        if len(batch):
            with connection.cursor().copy("copy t from stdin (format binary)") as copy:
                for part in (binary.HEADER, binary.encoded(batch, types), binary.TRAILER):
                    copy.write(part)
        found = connection.execute("select * from t").fetchall()
        connection.rollback()
    assert [tuple(row) for row in found] == [tuple(row.values()) for row in batch.to_pylist()]


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (pa.date32(), 2_147_483_647),
        (pa.date32(), -2_147_483_648),
        (records.TIMESTAMP, -(2**63)),
        (records.TIMESTAMP, -(2**63) + 946_684_800_000_000),
    ],
)
def test_a_time_that_postgres_does_not_have_is_refused_and_not_made_another(
    postgres_server: Server, type_: pa.DataType, value: int
) -> None:
    column = pa.array([value], pa.int32() if type_ == pa.date32() else pa.int64()).cast(type_)
    with pytest.raises(RecordRefused, match="column at holds a date that PostgreSQL does not have"):
        binary.encoded(pa.record_batch([column], names=["at"]), {"at": ""})


def test_nested_values_and_texts_go_into_the_columns_that_are_there(postgres_server: Server) -> None:
    postgres_server.run("create table crm_deals (id bigint primary key, j json, b jsonb, v varchar(5), n numeric)")
    destination = postgres_server.destination()
    rows = [{"id": n, "j": {"n": n}, "b": [n, None], "v": "a" * n, "n": D(n) / 4} for n in range(3)]
    destination.deliver(delivery(rows))
    rows[1]["v"] = None
    destination.deliver(delivery(rows, after=3))
    assert postgres_server.rows() == rows


def test_a_row_that_a_trigger_of_the_table_swallows_is_the_tables_own_business(postgres_server: Server) -> None:
    postgres_server.run("create table crm_deals (id bigint primary key, n bigint)")
    postgres_server.run("insert into crm_deals values (1, 0)")
    postgres_server.run(
        "create function keep() returns trigger language plpgsql as $$ begin"
        " if new.n < 0 then return null; end if; return new; end $$;"
        "create trigger keep before update on crm_deals for each row execute function keep()"
    )
    receipt = postgres_server.destination().deliver(delivery([{"id": 1, "n": -5}, {"id": 2, "n": 7}]))
    assert receipt.accepted == 2
    assert postgres_server.rows() == [{"id": 1, "n": 0}, {"id": 2, "n": 7}]


def test_a_key_that_somebody_else_inserts_at_the_same_moment_is_written_over(postgres_server: Server) -> None:
    """The delivery waits for the other transaction, which then turns out to have inserted what the delivery believed to be new."""
    destination = postgres_server.destination()
    destination.deliver(delivery([{"id": 1, "n": 1}]))
    with psycopg.connect(postgres_server.url) as other, ThreadPoolExecutor(1) as threads:
        other.execute("insert into crm_deals values (2, 5)")
        future = threads.submit(destination.deliver, delivery([{"id": 1, "n": 7}, {"id": 2, "n": 7}, {"id": 3, "n": 7}], after=1))
        waits = (
            "select 1 from pg_stat_activity where application_name = 'muxly' and wait_event_type = 'Lock' and datname = current_database()"
        )
        while not postgres_server.run(waits):
            assert not future.done()
        other.commit()
        assert future.result().accepted == 3
    assert postgres_server.rows() == [{"id": n, "n": 7} for n in (1, 2, 3)]
