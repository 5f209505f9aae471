"""Current rows over HTTP: filtered, in pages that fit together whatever happens meanwhile, exact in every form."""

import datetime as dt
import decimal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pyarrow as pa
import pytest

from muxly_dagster import browsing, records
from muxly_dagster.api.negotiating import best
from muxly_dagster.api.paging import place_cursor, write_cursor
from muxly_dagster.api.tables import ARROW, NDJSON
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater
from muxly_dagster.lake import Lake, LakeTable
from muxly_dagster_tests.api.shop import ORDERS, Shop

Run = Callable[[Any], Any]
ROWS = "/v1/tables/shop.orders/rows"


async def get(shop: Shop, path: str, params: Any = None, **headers: str) -> httpx.Response:
    async with shop.client() as client:
        return await client.get(path, params=params, headers=headers)


def ids(answer: httpx.Response) -> list[str]:
    return [row["id"] for row in answer.json()["items"]]


def test_tables_are_listed_also_those_without_data(shop: Shop, run: Run) -> None:
    found = {table["name"]: table for table in run(get(shop, "/v1/tables")).json()["items"]}
    assert list(found) == ["customers", "shop.never", "shop.orders"]
    assert found["shop.orders"]["columns"] == {"id": "string", "customer": "string", "amount": "decimal128(12, 2)", "number": "int64"}
    assert [found[name]["rows"] for name in found] == [3, 0, 4]
    assert (found["customers"]["kind"], found["customers"]["key"]) == ("transform", ["customer"])
    assert found["shop.never"]["table_id"] == "" and found["shop.never"]["key"] == ["id"]
    assert run(get(shop, "/v1/tables/customers")).json() == found["customers"]
    assert run(get(shop, "/v1/tables/shop.never/rows")).json() == {"items": [], "next": ""}


def test_rows_are_exact_in_every_form(shop: Shop, run: Run) -> None:
    as_json, lines, arrow = (run(get(shop, ROWS, accept=form)) for form in ("application/json", NDJSON, ARROW))
    assert b'"number":9007199254740993' in as_json.content and b'"number":9223372036854775807' in as_json.content
    rows = orjson.loads(as_json.content)["items"]
    assert rows[0] == {"id": "1001", "customer": "ada", "amount": "19.90", "number": 9007199254740993}
    assert [orjson.loads(line) for line in lines.content.splitlines()] == rows
    table = pa.ipc.open_stream(arrow.content).read_all()
    assert table.schema.field("amount").type == pa.decimal128(12, 2)
    assert table["amount"].to_pylist()[0] == decimal.Decimal("19.90") and table["number"].to_pylist()[0] == 2**53 + 1
    assert [each.headers["vary"] for each in (as_json, lines, arrow)] == ["Accept"] * 3
    assert [each.headers["content-type"] for each in (as_json, lines, arrow)] == ["application/json", NDJSON, ARROW]


def test_a_filter_and_columns(shop: Shop, run: Run) -> None:
    answer = run(get(shop, ROWS, [("filter", "amount > 100 and customer = 'ada'"), ("select", "amount"), ("select", "id")]))
    assert answer.json()["items"] == [{"amount": "120.50", "id": "1003"}]
    assert ids(run(get(shop, ROWS, {"filter": "ID = '1004' -- the last one"}))) == ["1004"]
    assert ids(run(get(shop, ROWS, {"filter": "_muxly_seq > 3", "select": "id"}))) == ["1004"]


@pytest.mark.parametrize(
    ("filter", "what"),
    [
        ("nosuch = 1", "there is no column nosuch"),
        ("(select 1) = 1", "contains a subquery"),
        ("true); drop table x; --", "is not one SQL expression"),
        ("count(*) > 1", "contains an aggregate"),
        ("amount >", "is not one SQL expression"),
        ("cast(customer as int) = 1", "the SQL failed on the data"),
        ("1/0 = 'x'::int", "the SQL failed on the data"),
        ("read_csv('/etc/passwd') = 1", "the SQL"),
        ("frobnicate(id)", "the SQL cannot run"),
    ],
)
def test_a_filter_that_cannot_be_is_told(shop: Shop, run: Run, filter: str, what: str) -> None:
    answer = run(get(shop, ROWS, {"filter": filter}))
    assert answer.status_code == 422, answer.text
    assert what in answer.json()["detail"]


def test_a_column_or_table_that_is_not_there_is_told_with_the_nearest(shop: Shop, run: Run) -> None:
    column = run(get(shop, ROWS, {"select": "custommer"}))
    assert (column.status_code, column.json()["detail"]) == (422, "there is no column custommer; did you mean customer?")
    for path in ("/v1/tables/shop.order", "/v1/tables/shop.order/rows"):
        table = run(get(shop, path))
        assert (table.status_code, table.json()["do"]) == (404, "did you mean shop.orders?")


def test_pages_fit_together(shop: Shop, run: Run) -> None:
    first = run(get(shop, ROWS, {"limit": 3, "filter": "id <> '1002'", "select": "id"}))
    assert ids(first) == ["1001", "1003", "1004"] and first.json()["next"] == ""
    assert "link" not in first.headers
    first = run(get(shop, ROWS, {"limit": 2, "filter": "id <> '1002'", "select": "id"}))
    assert ids(first) == ["1001", "1003"]
    query = first.headers["link"].removeprefix("<").removesuffix('>; rel="next"')
    second = run(get(shop, ROWS + query))
    assert ids(second) == ["1004"] and second.json() == {"items": [{"id": "1004"}], "next": ""}
    lines = run(get(shop, ROWS, {"limit": 2}, accept=NDJSON))
    assert lines.headers["link"].endswith('rel="next"')


def test_pages_do_not_shift_when_rows_come_and_go(own_shop: Shop, run: Run) -> None:
    first = run(get(own_shop, ROWS, {"limit": 2}))
    assert ids(first) == ["1001", "1002"]
    # 1001 and 1002 go, 1000 and 1003a come: nothing is seen twice and nothing that stayed is missed.
    changed = "\n".join([ORDERS.splitlines()[0], "1000,eve,1.00,1", "1003a,eve,2.00,1", *ORDERS.splitlines()[3:]]) + "\n"
    (own_shop.folder / "data" / "orders.csv").write_text(changed, "utf-8")
    own_shop.service.runtime.run("shop.orders")
    second = run(get(own_shop, ROWS, {"limit": 10, "cursor": first.json()["next"]}))
    assert ids(second) == ["1003", "1003a", "1004"]


@pytest.mark.parametrize(
    "cursor",
    [
        "rubbish",
        "€",
        "AAAA",
        write_cursor("1001"),
        write_cursor({"after": 1}),
        write_cursor(7),
        place_cursor("receipts", "2026", "1"),
        place_cursor("rows", "customers", "ada"),
        place_cursor("rows", "shop.orders", 1001),
        "W" * 3999,
    ],
)
def test_a_cursor_that_is_none_or_of_another_list_is_refused(shop: Shop, run: Run, cursor: str) -> None:
    answer = run(get(shop, ROWS, {"cursor": cursor}))
    assert answer.status_code == 400 and answer.json()["title"].startswith("The cursor is"), answer.text


@pytest.mark.parametrize("limit", ["0", "-1", "10001", "1e3", "x", "", str(10**30)])
def test_a_limit_that_is_too_much_is_refused(shop: Shop, run: Run, limit: str) -> None:
    assert run(get(shop, ROWS, {"limit": limit})).status_code == 422


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "a/x"),
        ("*/*", "a/x"),
        ("a/y", "a/y"),
        ("b/*", "b/z"),
        ("a/y;q=0.5, b/z;q=0.9", "b/z"),
        ("*/*;q=0.1, a/x;q=0, b/z;q=0.2", "b/z"),
        ("text/html", None),
        ("a/x;q=0", None),
        ("a/x;q=nonsense, a/y", "a/y"),
        (", ,", "a/x"),
        ("text/html, */*;q=0.1", "a/x"),
    ],
)
def test_the_form_that_is_wanted_most_is_chosen(accept: str, form: str | None) -> None:
    assert best(accept, ("a/x", "a/y", "b/z")) == form


def test_a_form_that_nobody_has_is_refused(shop: Shop, run: Run) -> None:
    assert run(get(shop, ROWS, accept="text/html")).status_code == 406


# ---- tables with odd values --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeTable]:
    """Every type of the lake, nulls, names that need quotes, a key of two columns, changes and deletions."""
    schema = pa.schema(
        [
            pa.field("a", pa.int64()),
            pa.field('odd "name", so', pa.string()),
            pa.field("select", pa.decimal128(38, 10)),
            pa.field("at", records.TIMESTAMP),
            pa.field("day", pa.date32()),
            pa.field("raw", pa.binary()),
            pa.field("flag", pa.bool_()),
            pa.field("n", pa.float64()),
            pa.field("nested", pa.string(), metadata=records.JSON_FIELD),
        ]
    )
    moment = dt.datetime(2026, 3, 1, 6, 0, 4, 112345, dt.UTC)
    big = decimal.Decimal("1234567890123456789012345678.0123456789")
    rows = [
        [n, name, big, moment, moment.date(), b"\x00\xff", n % 2 == 0, n / 3, '{"deep":[1,{"x":null}]}']
        for n in range(20)
        for name in ("x", "Ü")
    ] + [[20, "nulls", *[None] * 7]]
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    for kept in (rows, rows[:10] + rows[12:]):
        with lake.writer("odd", key=["a", 'odd "name", so'], run_id="r") as writer:
            columns = [pa.array(values, field.type) for values, field in zip(zip(*kept, strict=True), schema, strict=True)]
            writer.add(pa.table(columns, schema=schema))
            writer.finish(whole=True)
    yield lake.existing("odd")


def test_every_type_comes_back_as_it_was_stored(table: LakeTable) -> None:
    rows, last = browsing.read(table, limit=1000)
    assert last is None and len(rows) == table.count_current() == browsing.count(table) == 39
    assert rows.schema.equals(table.schema, check_metadata=True)
    stored = table.current()
    by = [("a", "ascending"), ('odd "name", so', "ascending")]
    assert rows.sort_by(by).equals(stored.sort_by(by))


def test_pages_of_any_size_give_the_same_rows(table: LakeTable) -> None:
    whole = browsing.read(table, limit=1000)[0].to_pylist()
    for size in (7, 39):
        found: list[Any] = []
        after: str | None = None
        while True:
            rows, after = browsing.read(table, limit=size, after=after)
            found += rows.to_pylist()
            if after is None:
                break
        assert found == whole


def test_nested_values_and_odd_names_can_be_asked_about(table: LakeTable) -> None:
    where = """nested ->> '$.deep[0]' = '1' and "odd ""name"", so" = 'Ü' and flag and a < 5"""
    rows, _ = browsing.read(table, where=where, columns=["a", "nested"], limit=10)
    assert rows["a"].to_pylist() == [0, 2, 4] and rows.schema.names == ["a", "nested"]


def test_a_condition_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    with lake.writer("long", key=["a"], run_id="r") as writer:
        writer.add(pa.table({"a": list(range(200_000))}))
        writer.finish(whole=True)
    found = lake.existing("long")
    slow = f"regexp_matches(replace(replace(a || 'xxxxxxxxxx', 'x', '{'y' * 40}'), 'y', '{'z' * 20}'), '(z|y)*x')"
    with pytest.raises(MuxlyError, match="took longer than 0.5 seconds"):
        browsing.read(found, where=slow, limit=1, seconds=0.5)
    assert len(browsing.read(found, limit=1)[0]) == 1


def test_more_queries_than_there_are_places_for_wait_and_are_sent_away(table: LakeTable) -> None:
    for _ in range(4):
        assert browsing._places.acquire(blocking=False)
    try:
        with pytest.raises(RetryLater, match="too many queries"):
            browsing.read(table, limit=1, seconds=0.01)
    finally:
        for _ in range(4):
            browsing._places.release()


def test_nothing_but_the_table_can_be_read(table: LakeTable, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n", "utf-8")
    for where in (f"a in (from '{tmp_path}/secret.csv')", f"read_text('{tmp_path}/secret.csv') is not null", "getenv('HOME') is not null"):
        with pytest.raises(ConfigurationError):
            browsing.read(table, where=where, limit=1)
