"""Records that are not as they should be: each is stored exactly or set aside with its reason, and the rest goes on."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster.errors import MuxlyError
from muxly_dagster_tests.bad_input.shop import PULL, TABLE, Api, Shop, clear, things
from muxly_dagster_tests.http.server import answer

Open = Callable[..., Shop]


def raw(*records: bytes) -> bytes:
    """A last page made of records as they are written here."""
    return answer(200, b'{"results": [' + b", ".join(records) + b'], "next": null}', Content_Type="application/json")


UNREADABLE = {
    "no key": (b'{"amount": 7}', "the record has no key"),
    "a null key": (b'{"id": null, "amount": 7}', "the record has no key: id is null"),
    "NaN": (b'{"id": "t0099", "amount": NaN}', "a number is NaN or infinite, which JSON does not know"),
    "infinity": (b'{"id": "t0099", "amount": -Infinity}', "a number is NaN or infinite, which JSON does not know"),
    "invalid UTF-8": (b'{"id": "t0099", "name": "caf\xe9"}', "bytes that are no UTF-8"),
    "no object": (b'"t0099"', "it is no object"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_record_is_set_aside_and_the_others_go_on(shop: Shop, api: Api, name: str) -> None:
    text, reason = UNREADABLE[name]
    api.troubles[2] = lambda _: raw(*(json.dumps(record).encode() for record in api.pages[2][:2]), text)
    pulled, delivered = shop.sync()
    assert (pulled.read, pulled.refused, delivered.accepted) == (11, 1, 10)
    (letter,) = shop.quarantine()
    assert reason in letter.reason
    assert set(json.loads(letter.record.replace("NaN", "0").replace("-Infinity", "0"))) & {"id", "amount"} or letter.record == '"t0099"'
    api.troubles.clear()
    assert shop.is_complete()
    assert shop.quarantine() == []


def test_an_unreadable_record_deletes_nothing(open_shop: Open, api: Api) -> None:
    shop = open_shop(warehouse={"mode": "mirror"})
    shop.sync()
    api.troubles[2] = lambda _: raw(b'{"id": "t0008", "amount": NaN}')
    assert shop.sync()[0].metadata["deletes"] == 0
    assert shop.rows() == api.ids


def test_a_key_that_stands_twice_in_a_page_is_one_record_and_the_last_counts(shop: Shop, api: Api) -> None:
    api.pages[1] = [*things(4, 5), {"id": "t0004", "amount": 400}, *things(6, 7)]
    pulled, delivered = shop.sync()
    assert (pulled.read, pulled.changed, pulled.metadata["duplicates"], delivered.accepted) == (13, 12, 1, 12)
    assert shop.rows(f"select amount from {TABLE} where id = 't0004'") == [400]
    api.pages[1] = [{"id": "t0004", "amount": 400}, *things(5, 6, 7)]
    assert shop.run(PULL).changed == 0
    assert shop.is_complete()


@pytest.mark.parametrize("digits", ["1000000000000000000000000000000", "1e30", "-123456789012345678901234567890.123456789"])
def test_a_number_beyond_64_bits_stays_exact(shop: Shop, api: Api, digits: str) -> None:
    api.troubles[2] = lambda _: raw(
        b'{"id": "t0008", "amount": ' + digits.encode() + b"}", *(json.dumps(t).encode() for t in things(9, 10, 11))
    )
    assert shop.sync()[1].accepted == 12
    amounts = dict(zip(*(shop.table().current()[name].to_pylist() for name in ("id", "amount")), strict=True))
    assert Decimal(str(amounts["t0008"])) == Decimal(digits)
    assert Decimal(str(amounts["t0003"])) == 3
    (stored,) = shop.rows(f"select amount from {TABLE} where id = 't0008'")
    assert Decimal(str(stored)) == Decimal(digits)
    assert shop.is_complete()


def test_a_type_that_changes_in_mid_pull_widens_the_column_here_and_there(shop: Shop, api: Api) -> None:
    api.pages = [things(*range(4_000)), things(*range(4_000, 8_000))]
    shop.sync()
    api.pages += [[{"id": f"t{n}", "amount": f"{n} EUR"} for n in range(8_000, 12_000)]]
    pulled, delivered = shop.sync()
    assert pulled.metadata["schema_changes"] == ["column amount changed from int64 to string"]
    assert (pulled.changed, delivered.accepted) == (4_000, 4_000)
    assert shop.table().schema.field("amount").type == pa.string()
    assert shop.rows(f"select amount from {TABLE} where id in ('t0003', 't8000') order by id") == ["3", "8000 EUR"]
    assert shop.is_complete()


@pytest.mark.parametrize("contract", ["freeze", "discard"])
def test_a_type_that_may_not_change_is_refused_whole_or_record_by_record(open_shop: Open, api: Api, contract: str) -> None:
    shop = open_shop(stream={"contract": contract})
    shop.sync()
    api.pages[2][0]["amount"] = "8 EUR"
    if contract == "freeze":
        error = shop.fails(MuxlyError)
        assert "column amount changed from int64 to string" in error.what
        assert "set `contract: evolve`" in error.do
    else:
        assert shop.sync()[0].refused == 1
        assert "does not fit the table's types" in shop.quarantine()[0].reason
    assert shop.rows() == api.ids
    api.pages[2][0]["amount"] = 8
    assert shop.is_complete()


def test_a_field_of_5_mb_arrives_whole(shop: Shop, api: Api) -> None:
    text = "".join(f"{n:07} " for n in range(625_000))
    api.pages[1][2]["text"] = text
    shop.sync()
    assert shop.is_complete()
    with closing(sqlite3.connect(shop.folder / "warehouse.db")) as warehouse:
        assert warehouse.execute(f"select text from {TABLE} where text is not null").fetchall() == [(text,)]


def test_a_page_of_200_mb_is_read_piece_by_piece(open_shop: Open, api: Api) -> None:
    """The parts of the page are the same two texts over and over, so that only the reader has to hold 200 MB."""
    shop = open_shop()
    count, filler = 2_000, b"x" * 100_000

    def huge(_: Any) -> list[bytes]:
        parts = [b'{"results": [']
        for n in range(count):
            parts += [b'%s{"id": "h%04d", "text": "' % (b"," if n else b"", n), filler, b'"}']
        parts += [b'], "next": null}']
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {sum(map(len, parts))}\r\n\r\n"
        return [head.encode(), *parts]

    api.troubles[2] = huge
    pulled, delivered = shop.sync()
    assert (pulled.changed, delivered.accepted) == (8 + count, 8 + count)
    assert shop.rows(f"select count(*) from {TABLE} where length(text) = 100000") == [count]
    with shop.open() as runtime:
        receipts = runtime.state.ledger.receipts()
    assert max(receipt.read for receipt in receipts) < count


def test_a_record_that_a_destination_will_never_take_is_shelved_alone(open_shop: Open, api: Api) -> None:
    shop = open_shop(warehouse={"mode": "upsert"})
    shop.rows(f"create table {TABLE} (id text primary key, amount bigint check (amount <> 5))")
    delivered = shop.sync()[1]
    assert (delivered.accepted, delivered.refused) == (11, 1)
    with shop.open() as runtime:
        (letter,) = runtime.state.ledger.dead_letters("out")
    assert "CHECK constraint failed" in letter.reason
    assert json.loads(letter.record)["key"] == "t0005"


def test_what_is_wrong_with_a_transform_of_bad_records_is_said_clearly(shop: Shop) -> None:
    project = (shop.folder / "muxly.yaml").read_text()
    shop.write(
        "muxly.yaml",
        project + "transforms:\n  numbers:\n    key: [id]\n    sql: select id, cast(amount || 'x' as integer) n from shop.things\n",
    )
    shop.run(PULL)
    with pytest.raises(MuxlyError) as caught:
        shop.run("numbers")
    assert "transform numbers" in str(clear(caught.value))
