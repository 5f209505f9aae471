"""The sql connector's types: every value arrives exactly, or is set aside with its reason."""

import datetime as dt
import decimal
from pathlib import Path

import pyarrow as pa
import pytest

from muxly_dagster import records
from muxly_dagster_tests.connectors.databases import batches, on_mariadb, on_postgres, on_sqlite, rows

UTC = dt.UTC


def test_postgres_columns_arrive_in_the_lakes_types_without_losing_a_digit(postgres: str) -> None:
    on_postgres(
        postgres,
        "create type mood as enum ('sad', 'happy')",
        "create domain positive as numeric(8, 3) check (value > 0)",
        """create table things (
            id bigint primary key, yes boolean, small smallint, real4 real, real8 double precision, price numeric(38, 10),
            huge numeric(60, 2), loose numeric, d positive, day date, at timestamptz, local timestamp, code uuid, feeling mood, doc jsonb,
            doc2 json, tags text[], grid int[][], raw bytea, padded char(4), span interval, hour time, net inet, word text, cash money)""",
        r"""insert into things values (
            9007199254740993, true, -3, 0.1, 0.1, 1234567890123456789012345678.0123456789,
            123456789012345678901234567890123456789012345678901234567.89,
            0.000000001, 12345.678, '2024-02-29', '2024-03-31 03:30:00.123456+02', '2024-03-31 02:30:00',
            '00000000-0000-0000-0000-00000000002a', 'happy', '{"a": [1, 2.50]}', '{"b":1}',
            array['x,y', null, 'q"uote'], '{{1,2},{3,4}}', '\x00ff0a22', 'ab', '1 day 02:03:04', '23:59:59.5',
            '10.0.0.1', E'a "quoted", text\nover lines \\ tab\t', 12.34)""",
        "insert into things (id, word) values (2, '')",
        "insert into things (id) values (3)",
    )
    found = batches(postgres)
    assert len(found) == 1 and found[0].unreadable == ()
    table = found[0].rows
    full, empty, null = sorted(table.to_pylist(), key=lambda row: -row["id"] if row["id"] > 3 else row["id"])
    assert full == {
        "id": 9007199254740993,
        "yes": True,
        "small": -3,
        "real4": 0.1,
        "real8": 0.1,
        "price": decimal.Decimal("1234567890123456789012345678.0123456789"),
        "huge": "123456789012345678901234567890123456789012345678901234567.89",
        "loose": decimal.Decimal("0.000000001"),
        "d": decimal.Decimal("12345.678"),
        "day": dt.date(2024, 2, 29),
        "at": dt.datetime(2024, 3, 31, 1, 30, 0, 123456, UTC),
        "local": dt.datetime(2024, 3, 31, 2, 30, tzinfo=UTC),
        "code": "00000000-0000-0000-0000-00000000002a",
        "feeling": "happy",
        "doc": '{"a": [1, 2.50]}',
        "doc2": '{"b":1}',
        "tags": '["x,y",null,"q\\"uote"]',
        "grid": "[[1,2],[3,4]]",
        "raw": b"\x00\xff\n\x22",
        "padded": "ab  ",
        "span": "P1DT2H3M4S",
        "hour": "23:59:59.5",
        "net": "10.0.0.1",
        "word": 'a "quoted", text\nover lines \\ tab\t',
        "cash": decimal.Decimal("12.34"),
    }
    assert empty["word"] == "" and null["word"] is None and set(null.values()) == {3, None}
    assert table.schema.field("price").type == pa.decimal128(38, 10)
    assert [f.name for f in table.schema if records.is_json(f)] == ["doc", "doc2", "tags", "grid"]


def test_mariadb_columns_arrive_in_the_lakes_types_without_losing_a_digit(mariadb: str) -> None:
    on_mariadb(
        mariadb,
        """create table things (
            id bigint unsigned primary key, tiny tinyint(1), real8 double, price decimal(10, 2), up decimal(10, 2) unsigned,
            huge decimal(60, 2), day date, at timestamp(6) null, local datetime,
            flag bit(1), bits bit(10), doc json, raw varbinary(10), blobby blob, word text,
            feeling enum('sad', 'happy'), hour time, y year)""",
        r"""insert into things values (
            18446744073709551615, 1, 0.1, -12345678.91, 12345678.91, 1234567890123456789012345678901234567890.12, '2024-02-29',
            from_unixtime(1711848600.123456), '2024-03-31 02:30:00', b'1', b'1000000001', '{"a": [1, 2.50]}', x'00ff', x'fe',
            'naïve "q" \\ , 🙂', 'happy',
            '-30:00:00', 2024)""",
        "insert into things (id, word) values (2, '')",
    )
    (batch,) = batches(mariadb)
    null, full = batch.rows.to_pylist()
    assert full == {
        "id": decimal.Decimal(18446744073709551615),
        "tiny": 1,
        "real8": 0.1,
        "price": decimal.Decimal("-12345678.91"),
        "up": decimal.Decimal("12345678.91"),
        "huge": "1234567890123456789012345678901234567890.12",
        "day": dt.date(2024, 2, 29),
        "at": dt.datetime.fromtimestamp(1711848600, UTC).replace(microsecond=123456),
        "local": dt.datetime(2024, 3, 31, 2, 30, tzinfo=UTC),
        "flag": True,
        "bits": 513,
        "doc": '{"a": [1, 2.50]}',
        "raw": b"\x00\xff",
        "blobby": b"\xfe",
        "word": 'naïve "q" \\ , 🙂',
        "feeling": "happy",
        "hour": "-30:00:00",
        "y": 2024,
    }
    assert null["word"] == "" and null["doc"] is None
    schema = batch.rows.schema
    assert schema.field("price").type == schema.field("up").type == pa.decimal128(10, 2)
    assert [f.name for f in schema if records.is_json(f)] == ["doc"]


def test_mariadbs_zero_dates_are_read_as_null_and_said_so(mariadb: str) -> None:
    on_mariadb(
        mariadb, "set sql_mode = ''", "create table things (id int primary key, born date)", "insert into things values (1, '0000-00-00')"
    )
    (batch,) = batches(mariadb)
    assert batch.rows.to_pylist() == [{"id": 1, "born": None}]
    assert batch.metadata == {"coercions": {"born": "0000-00-00 read as null"}}


def test_sqlite_values_choose_the_type_that_holds_them_all(tmp_path: Path) -> None:
    url = on_sqlite(
        tmp_path / "db",
        """create table things (
            id integer primary key, yes boolean, mixed, real8 real, word text, raw blob, at datetime, day date, doc json, num)""",
        "insert into things values (1, 1, 9007199254740993, 1, 'x', x'00ff', '2024-03-31 02:30:00', '2024-02-29', '{\"a\": 1}', 1)",
        "insert into things values (2, 0, 'text', 2.5, '', null, '2024-03-31T02:30:00.5+02:00', null, '[1]', 1.5)",
    )
    (batch,) = batches(url)
    assert batch.rows.to_pylist() == [
        {
            "id": 1,
            "yes": True,
            "mixed": "9007199254740993",
            "real8": 1.0,
            "word": "x",
            "raw": b"\x00\xff",
            "at": dt.datetime(2024, 3, 31, 2, 30, tzinfo=UTC),
            "day": dt.date(2024, 2, 29),
            "doc": '{"a": 1}',
            "num": 1.0,
        },
        {
            "id": 2,
            "yes": False,
            "mixed": "text",
            "real8": 2.5,
            "word": "",
            "raw": None,
            "at": dt.datetime(2024, 3, 31, 0, 30, 0, 500000, UTC),
            "day": None,
            "doc": "[1]",
            "num": 1.5,
        },
    ]


def test_a_value_that_has_no_place_costs_its_own_row_only(postgres: str) -> None:
    on_postgres(
        postgres,
        "create table things (id int primary key, amount numeric(5, 2), loose numeric, at timestamptz, day date, ok boolean)",
        "insert into things values (1, 1, 1, '2024-01-01', '2024-01-01', true), (2, 'NaN', 1, null, null, true)",
        "insert into things values (3, 1, 'NaN', null, null, true)",
        "insert into things values (4, 1, 1, 'infinity', null, false), (5, 1, 1, null, '0044-03-15 BC', null), (6, 1, 1, null, null, null)",
    )
    (batch,) = batches(postgres)
    assert [(row["id"], row["ok"]) for row in batch.rows.to_pylist()] == [(1, True), (6, None)]
    reasons = [bad.reason.partition(":")[0] for bad in batch.unreadable]
    assert reasons == ["amount", "loose", "at", "day"]
    assert '"id":"2"' in batch.unreadable[0].text and "query" in batch.unreadable[0].reason


def test_sqlite_text_that_is_no_utf8_or_no_json_is_set_aside(tmp_path: Path) -> None:
    url = on_sqlite(
        tmp_path / "db",
        "create table things (id integer primary key, word text, doc json)",
        "insert into things values (1, cast(x'ff41' as text), null), (2, 'fine', '{}'), (3, 'fine', '{half')",
    )
    (batch,) = batches(url)
    assert [row["id"] for row in batch.rows.to_pylist()] == [2]
    assert [bad.reason.partition(" ")[0] for bad in batch.unreadable] == ["word:", "doc:"]


def test_numbers_without_declared_precision_grow_with_their_digits(postgres: str) -> None:
    on_postgres(
        postgres, "create table things (id int primary key, n numeric)", "insert into things values (1, 1.5), (2, 1e-12), (3, 1e30)"
    )
    one, two, three = batches(postgres, batch_rows=1)
    assert [batch.rows.schema.field("n").type for batch in (one, two, three)] == [
        pa.decimal128(28, 9),
        pa.decimal128(31, 12),
        pa.string(),  # 31 digits before the point and 9 behind it are more than a decimal holds
    ]
    assert [decimal.Decimal(str(row["n"])) for row in rows([one, two, three])] == [
        decimal.Decimal("1.5"),
        decimal.Decimal("1e-12"),
        decimal.Decimal(10) ** 30,
    ]


def test_a_key_without_declared_precision_reads_the_same_whatever_the_others_have(postgres: str) -> None:
    on_postgres(postgres, "create table things (id numeric primary key, n numeric)", "insert into things values (12, 1), (0.5, 2)")
    (batch,) = batches(postgres)
    assert sorted(batch.rows["id"].to_pylist()) == ["0.5", "12"]


def test_postgres_binary_and_csv_say_the_same(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_postgres(
        postgres,
        """create table things (id bigint primary key, yes boolean, small smallint, mid integer, real4 real, real8 double precision,
            price numeric(12, 2), loose numeric, day date, at timestamptz, local timestamp, code uuid, doc jsonb, doc2 json, tags text[],
            raw bytea, word text, short varchar(9), cash money)""",
        r"""insert into things values (1, true, -3, 7, 0.1, 1e-300, 12.30, 1e-9, '0001-01-01',
            '9999-12-31 23:59:59.999999Z', '1969-12-31 23:59:59', '00000000-0000-0000-0000-00000000002a', '{"a": [1, 2.50]}', '{"b":1}',
            array['x,y', null], '\x00ff', 'naïve \N 🙂', '', -12.34)""",
        "insert into things (id, real4, real8) values (2, 'NaN', 'Infinity')",
        "insert into things (id, day) values (3, '-infinity')",
        "insert into things (id, at, yes, raw) values (4, '10000-01-01', false, '\\x00')",
        "insert into things (id, local) values (5, '0044-03-15 BC')",
        "insert into things (id, price) values (6, 'NaN')",
        "insert into things (id) values (7)",
    )
    (binary,) = batches(postgres)
    monkeypatch.setattr("muxly_dagster.connectors.sql.postgres_arrow.item", lambda column, name: None)
    (csv,) = batches(postgres)
    assert binary.rows.schema.equals(csv.rows.schema, check_metadata=True)
    assert str(binary.rows.to_pylist()) == str(csv.rows.to_pylist())
    assert [row["id"] for row in csv.rows.to_pylist()] == [1, 2, 7]
    assert binary.unreadable == csv.unreadable
