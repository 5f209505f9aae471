"""Sources, routes, destinations, deliveries, dead letters, traces and connectors over HTTP: in the words that the command prints."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

from muxly_dagster import records
from muxly_dagster.errors import RetryLater
from muxly_dagster.state import StoredReceipt
from muxly_dagster_tests.api.shop import Shop

Run = Callable[[Any], Any]


async def ask(shop: Shop, method: str, path: str, **asked: Any) -> httpx.Response:
    async with shop.client() as client:
        return await client.request(method, path, **asked)


@pytest.fixture
def get(shop: Shop, run: Run) -> Callable[[str], Any]:
    """Asks the shop; answers the JSON."""

    def got(path: str) -> Any:
        answer = run(ask(shop, "GET", path))
        assert answer.status_code == 200, answer.text
        return answer.json()

    return got


def test_sources_and_pulls_are_listed(get: Callable[[str], Any]) -> None:
    (source,) = get("/v1/sources")["items"]
    assert source == get("/v1/sources/shop")
    assert (source["connector"], source["pulls"]) == ("files", ["shop.orders", "shop.never"])
    never, orders = get("/v1/streams")["items"]
    assert (never["rows"], never["last_success"], orders["rows"]) == (0, None, 4)
    assert orders["last_success"].endswith("Z") and orders["columns"]["amount"] == "decimal128(12, 2)"
    assert [stream["name"] for stream in get("/v1/sources/shop/streams")["items"]] == ["orders"]


def test_a_source_and_a_destination_are_tried(own_shop: Shop, run: Run) -> None:
    good = run(ask(own_shop, "POST", "/v1/sources/shop/test")).json()
    assert good["status"] == "ok" and [check["name"] for check in good["checks"]] == ["source shop", "pull shop.orders", "pull shop.never"]
    (own_shop.folder / "data" / "orders.csv").unlink()
    (own_shop.folder / "data").rmdir()
    bad = run(ask(own_shop, "POST", "/v1/sources/shop/test"))
    assert (bad.status_code, bad.json()["status"], bad.json()["checks"][0]["status"]) == (200, "failed", "failed")
    tried = run(ask(own_shop, "POST", "/v1/destinations/hook/test")).json()
    assert tried["status"] == "ok" and tried["checks"][0]["name"] == "destination hook"


@pytest.mark.parametrize(
    ("method", "path", "do"),
    [
        ("GET", "/v1/sources/shp", "did you mean shop?"),
        ("POST", "/v1/sources/shp/test", "did you mean shop?"),
        ("GET", "/v1/sources/shp/streams", "did you mean shop?"),
        ("GET", "/v1/routes/big_order", "did you mean big_orders?"),
        ("POST", "/v1/routes/big_orders.hoook/plan", "did you mean big_orders.hook?"),
        ("POST", "/v1/routes/big_order/resync", "did you mean big_orders?"),
        ("GET", "/v1/destinations/hok", "did you mean hook?"),
        ("POST", "/v1/destinations/hok/test", "did you mean hook?"),
        ("POST", "/v1/destinations/hok/resume", "did you mean hook?"),
        ("GET", "/v1/deliveries/big_orders.hok", "did you mean big_orders.hook?"),
        ("GET", "/v1/deliveries/big_orders.hok/receipts", "did you mean big_orders.hook?"),
        ("GET", "/v1/dead-letters?name=big_order", "did you mean big_orders?"),
        ("GET", "/v1/dead-letters/ffff", "list them with GET /v1/dead-letters?status=all"),
        ("GET", "/v1/connectors/hubspott", "did you mean hubspot?"),
        ("GET", "/v1/trace?table=shop.order&key=1", "did you mean shop.orders?"),
        ("GET", "/v1/records/nothing/trace", "take the `id` of a record, or ask GET /v1/trace?table=...&key=..."),
        ("GET", "/v1/tables/...", "there are customers, shop.never, shop.orders"),
    ],
)
def test_a_name_that_is_not_there_is_told_with_the_nearest(shop: Shop, run: Run, method: str, path: str, do: str) -> None:
    answer = run(ask(shop, method, path))
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), answer.text
    assert answer.json()["do"] == do


def test_routes_say_their_rules(get: Callable[[str], Any], shop: Shop, run: Run) -> None:
    routes = {route["name"]: route for route in get("/v1/routes")["items"]}
    assert list(routes) == ["big_orders", "counted", "customers_out"]
    assert routes["big_orders"] == get("/v1/routes/big_orders")
    assert routes["big_orders"]["rules"] == [{"rule": "big", "when": "amount > 100", "to": ["files", "hook"], "sample": None}]
    assert routes["big_orders"]["otherwise"] == ["files"] and routes["customers_out"]["rules"][0]["when"] is None
    plans = run(ask(shop, "POST", "/v1/routes/big_orders/plan")).json()["items"]
    assert [(plan["target"], plan["waiting"], plan["warning"]) for plan in plans] == [
        ("big_orders.files", 0, ""),
        ("big_orders.hook", 0, ""),
    ]


def test_deliveries_stand_as_the_command_tells_it(get: Callable[[str], Any], shop: Shop) -> None:
    runtime = shop.service.runtime
    told = get("/v1/deliveries")["items"]
    printed = orjson.loads(records.to_json([runtime.standing(name).plain() for name in sorted(runtime.assembly.targets)]))
    assert told == printed
    assert [each["target"] for each in get("/v1/deliveries?route=big_orders")["items"]] == ["big_orders.files", "big_orders.hook"]
    assert get("/v1/deliveries/big_orders.hook")["dead_letters"] == 1


def test_receipts_come_in_pages_that_newer_ones_do_not_disturb(own_shop: Shop, run: Run) -> None:
    ledger = own_shop.service.state.ledger
    for after in range(100, 110):
        ledger.record(
            StoredReceipt("big_orders.hook", ledger.receipts("big_orders.hook")[0].table_id, after, after + 1, 1, 1, 0, 0, 0.1, {}, "run")
        )
    path, seen, cursor = "/v1/deliveries/big_orders.hook/receipts", [], ""
    for page in range(20):
        answer = run(ask(own_shop, "GET", path, params={"limit": 3, "cursor": cursor})).json()
        seen += [receipt["after"] for receipt in answer["items"]]
        cursor = answer["next"]
        if page == 0:
            ledger.record(StoredReceipt("big_orders.hook", "other", 200, 201, 1, 1, 0, 0, 0.1, {}, "run"))
        if not cursor:
            break
    assert seen == [*range(109, 99, -1), 0]
    wrong = run(
        ask(own_shop, "GET", "/v1/dead-letters", params={"cursor": run(ask(own_shop, "GET", path, params={"limit": 1})).json()["next"]})
    )
    assert (wrong.status_code, wrong.json()["title"]) == (400, "The cursor is of another list")


def test_a_destination_is_resumed(own_shop: Shop, run: Run) -> None:
    own_shop.service.state.breakers.disable("hook", "410 Gone", dt.datetime.now(dt.UTC))
    assert run(ask(own_shop, "GET", "/v1/destinations/hook")).json()["breaker"]["status"] == "disabled"
    resumed = run(ask(own_shop, "POST", "/v1/destinations/hook/resume")).json()
    assert resumed == {"destination": "hook", "was": "disabled", "reason": "410 Gone"}
    assert run(ask(own_shop, "GET", "/v1/destinations/hook")).json()["breaker"]["status"] == "closed"


def test_a_route_is_resynced(own_shop: Shop, run: Run) -> None:
    assert run(ask(own_shop, "POST", "/v1/routes/customers_out/resync")).json() == {"targets": ["customers_out.warehouse"]}
    assert run(ask(own_shop, "GET", "/v1/deliveries/customers_out.warehouse")).json()["lag"] == 3
    with own_shop.service.state.lock("deliver.customers_out.warehouse"):
        busy = run(ask(own_shop, "POST", "/v1/routes/customers_out/resync"))
    assert (busy.status_code, busy.json()["title"]) == (409, "Somebody else is doing this right now")


# ---- dead letters ------------------------------------------------------------------------------------------------------


def test_a_dead_letter_is_shown_as_the_command_shows_it(get: Callable[[str], Any], shop: Shop) -> None:
    (letter,) = get("/v1/dead-letters")["items"]
    (kept,) = shop.service.state.ledger.dead_letters()
    assert letter == get(f"/v1/dead-letters/{letter['id']}") == get(f"/v1/dead-letters/{letter['id'][:6]}") == kept.plain()
    assert get("/v1/dead-letters?name=big_orders")["items"] == get("/v1/dead-letters?name=big_orders.hook&status=all")["items"] == [letter]
    assert get("/v1/dead-letters?name=shop")["items"] == get("/v1/dead-letters?status=skipped")["items"] == []


def test_a_dead_letter_is_corrected_replayed_and_skipped(own_shop: Shop, run: Run) -> None:
    (letter,) = own_shop.service.state.ledger.dead_letters()
    path = f"/v1/dead-letters/{letter.id}"
    edited = run(ask(own_shop, "PATCH", path, json={"data": {"amount": "99.50"}})).json()
    assert orjson.loads(edited["edited"]) == {"id": "1003", "customer": "ada", "amount": "99.50", "number": 2}
    for data, what in (({"amont": 1}, "did you mean amount?"), ({"amount": "a lot"}, "amount: 'a lot' is not decimal128(12, 2)")):
        wrong = run(ask(own_shop, "PATCH", path, json={"data": data}))
        assert wrong.status_code == 422 and what in wrong.json()["detail"]
    assert run(ask(own_shop, "PATCH", path, json={"data": None})).json()["edited"] is None
    assert run(ask(own_shop, "POST", "/v1/dead-letters/replay", json={"ids": [letter.id]})).json() == {
        "replayed": 0,
        "superseded": 0,
        "refused": 1,
    }
    assert run(ask(own_shop, "GET", path)).json()["times"] == 2
    assert run(ask(own_shop, "POST", "/v1/dead-letters/skip", json={"ids": [letter.id, letter.id[:8]]})).json() == {"skipped": 1}
    assert run(ask(own_shop, "GET", path)).json()["status"] == "skipped"
    again = run(ask(own_shop, "POST", "/v1/dead-letters/skip", json={"ids": [letter.id]}))
    assert (again.status_code, again.json()["do"]) == (422, "leave it out")
    assert run(ask(own_shop, "POST", "/v1/dead-letters/replay", json={"name": "big_orders"})).json()["refused"] == 0


@pytest.mark.parametrize(
    "chosen", [{}, {"ids": [], "name": ""}, {"ids": ["ab"], "name": "big_orders"}, {"ids": ["ab"] * 1001}, {"ids": ["%"]}]
)
def test_what_is_meant_must_be_said_in_one_way(shop: Shop, run: Run, chosen: Any) -> None:
    assert run(ask(shop, "POST", "/v1/dead-letters/skip", json=chosen)).status_code == 422


# ---- traces, connectors, the schema ------------------------------------------------------------------------------------


def test_a_record_is_traced_as_the_command_tells_it(get: Callable[[str], Any], shop: Shop) -> None:
    told = get("/v1/trace?table=shop.orders&key=1003")["items"]
    assert told == orjson.loads(records.to_json(shop.service.runtime.trace("shop.orders 1003")))
    assert told == get(f"/v1/records/{told[0]['record']['id']}/trace")["items"]
    outcomes = {target["target"]: target["outcome"] for target in told[0]["targets"]}
    assert outcomes == {"big_orders.files": "accepted", "big_orders.hook": "refused", "counted.numbers": "accepted"}


def test_a_record_that_is_not_there_is_told(shop: Shop, run: Run) -> None:
    for path in ("/v1/trace?table=shop.orders&key=9", "/v1/trace?table=shop.never&key=9", "/v1/records/shop.orders:00000000:1/trace"):
        assert run(ask(shop, "GET", path)).status_code == 404, path


def test_connectors_and_the_schema_are_told(get: Callable[[str], Any]) -> None:
    first = get("/v1/connectors?limit=2")
    assert first["next"] and len(first["items"]) == 2
    everything = get("/v1/connectors?limit=1000")["items"]
    assert [each["id"] for each in everything] == sorted(each["id"] for each in everything)
    sheet = get("/v1/connectors/files?source=lists")
    assert sheet["id"] == "files" and "\n  lists:\n    connector: files\n" in sheet["template"]
    schema = get("/v1/schema")
    assert schema["$schema"].startswith("https://json-schema.org/") and "sources" in schema["properties"]


def test_a_trouble_of_the_other_side_is_a_problem_with_when_to_come_again(
    own_shop: Shop, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise RetryLater("the provider is away", after=2.4)

    kind = type(own_shop.service.runtime.assembly.sources["shop"])
    monkeypatch.setattr(kind, "streams", away)
    answer = run(ask(own_shop, "GET", "/v1/sources/shop/streams"))
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["detail"]) == (503, "3", "the provider is away")
