"""GET /metrics: Muxly's own figures beside the project's, readable by every scraper, for those who may."""

import datetime as dt
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from muxly_dagster import observing
from muxly_dagster.destinations.prometheus import exposing
from muxly_dagster.errors import RetryLater
from muxly_dagster.policy import Breaker
from muxly_dagster.services import Rate
from muxly_dagster.state import State, Wait, tables
from muxly_dagster_tests.api.shop import TOKEN, Shop, opened

Run = Callable[[Any], Any]
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


async def scrape(shop: Shop, token: str = TOKEN, address: str = "127.0.0.1", host: str = "muxly.example", **headers: str) -> httpx.Response:
    async with shop.client(token, address=address) as client:
        return await client.get(f"http://{host}/metrics", headers=headers)


def values(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """By sample name, the values by their labels' values."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in parse_text(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_the_figures_are_those_of_the_state(shop: Shop, run: Run) -> None:
    found = values(run(scrape(shop)).text)
    assert found["muxly_table_rows"] == {("shop.orders",): 4, ("customers",): 3}
    assert found["muxly_table_changes_total"] == {("shop.orders",): 4, ("customers",): 3}
    records = {labels: value for labels, value in found["muxly_delivery_records_total"].items() if labels[0] == "big_orders.hook"}
    assert records == {("big_orders.hook", "accepted"): 1, ("big_orders.hook", "refused"): 1, ("big_orders.hook", "unrouted"): 2}
    assert found["muxly_delivery_lag_records"][("customers_out.warehouse",)] == 0
    assert found["muxly_dead_letters"] == {("delivery", "big_orders.hook"): 1}
    assert found["muxly_breaker"][("hook", "closed")] == 1 and sum(found["muxly_breaker"].values()) == 4
    last = dt.datetime.fromtimestamp(found["muxly_pull_last_success_timestamp_seconds"][("shop.orders",)], dt.UTC)
    assert last == shop.service.runtime.last_pull("shop.orders")
    assert found["muxly_exposition_up"] == {(): 1}


def test_requests_are_counted_by_the_route_as_it_is_declared(own_shop: Shop, run: Run) -> None:
    async def asked() -> None:
        async with own_shop.client() as client:
            for path in ("/v1/sources/shop", "/v1/sources/nobody", "/v1/sources/nobody-else", "/v1/x", "/v1/y"):
                await client.get(path)
            await client.request("BREW", "/v1/sources")

    run(asked())
    found = values(run(scrape(own_shop)).text)
    assert found["muxly_api_requests_total"] == {
        ("GET", "/v1/sources/{name}", "200"): 1,
        ("GET", "/v1/sources/{name}", "404"): 2,
        ("GET", "unknown", "404"): 2,
        ("other", "/v1/sources", "405"): 1,
    }
    assert found["muxly_api_request_seconds_count"][("GET", "/v1/sources/{name}")] == 3


def test_both_formats_are_read_by_the_strict_parsers_and_no_name_is_there_twice(shop: Shop, run: Run) -> None:
    run(scrape(shop))
    modern, plain = run(scrape(shop, accept=OPENMETRICS)), run(scrape(shop))
    assert modern.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0") and modern.text.endswith("# EOF\n")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = [family.name for family in parse_openmetrics(modern.text)]
    assert sorted(families) == sorted(set(families)) and "shop_orders" in families and "muxly_api_requests" in families
    heads = [line for line in plain.text.splitlines() if line.startswith("# TYPE")]
    assert sorted(heads) == sorted(set(heads))


def test_the_projects_metrics_stand_beside_muxlys_own_which_nobody_can_take_the_name_of(shop: Shop, run: Run) -> None:
    found = values(run(scrape(shop)).text)
    assert found["shop_orders_total"] == {(): 4}
    assert "muxly_breaker_total" not in found and len(found["muxly_breaker"]) == 16


def test_trouble_with_the_projects_metrics_hides_none_of_muxlys(own_shop: Shop, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Any:
        raise RetryLater("the state is away")

    kind = type(own_shop.service.runtime.assembly.destinations["numbers"])
    monkeypatch.setattr(kind, "shown", away)
    found = values(run(scrape(own_shop)).text)
    assert found["muxly_exposition_up"] == {(): 0} and "shop_orders_total" not in found and found["muxly_table_rows"]


def test_promtool_has_nothing_to_say(shop: Shop, run: Run) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here: install Debian's package prometheus")
    done = subprocess.run([promtool, "check", "metrics"], input=run(scrape(shop)).text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_metrics_token_reads_metrics_and_nothing_else(shop: Shop, run: Run) -> None:
    with_token = opened(shop.folder, {**shop.service.environ, "MUXLY_METRICS_TOKEN": "scr4per"})
    try:
        assert [run(scrape(with_token, token)).status_code for token in ("scr4per", TOKEN, "wrong", "")] == [200, 200, 401, 401]

        async def sources() -> int:
            async with with_token.client("scr4per") as client:
                return (await client.get("/v1/sources")).status_code

        assert run(sources()) == 401
    finally:
        with_token.service.close()


def test_with_no_admin_token_this_machine_may_scrape(shop: Shop, run: Run) -> None:
    environ = {name: value for name, value in shop.service.environ.items() if name != "MUXLY_ADMIN_TOKEN"}
    bare = opened(shop.folder, environ)
    try:
        assert run(scrape(bare, "", host="127.0.0.1")).status_code == 200
        assert run(scrape(bare, "", host="localhost")).status_code == 200
        assert run(scrape(bare, "", address="10.0.0.7", host="127.0.0.1")).status_code == 403
        assert run(scrape(bare, "", host="rebound.example")).status_code == 403
    finally:
        bare.service.close()


# ---- what the state comes to, on both databases ------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def state(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    url = f"sqlite:///{tmp_path}/state.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    found = State.open(url, tmp_path)
    yield found
    found.close()


def test_waiting_inbox_budgets_and_breakers_are_figures_too(state: State, shop: Shop) -> None:
    now = dt.datetime.now(dt.UTC)
    state.waiting.put(Wait("big_orders.hook", now, "connection refused", 3))
    for _ in range(2):
        state.breakers.failed("hook", Breaker(failures=2), "connection refused", now)
    state.turns.reserve([Rate("an account", 10, 60.0)], 1)
    with state.inbox_engine.begin() as connection:
        rows = [
            {
                "source": "app",
                "stream": "signups",
                "received_at": f"2026-03-01T06:00:0{n}.000000Z",
                "count": n,
                "size": n,
                "ids": "",
                "body": b"x" * n,
            }
            for n in (1, 2)
        ]
        connection.execute(tables.inbox.insert(), [row | {"refused": "[]"} for row in rows])
    runtime = shop.service.runtime
    found = values(exposing.page(observing.families(runtime.lake, state, runtime.assembly)).decode())
    assert found["muxly_delivery_failures"][("big_orders.hook",)] == 3
    assert found["muxly_breaker"][("hook", "open")] == 1 and found["muxly_breaker"][("hook", "closed")] == 0
    assert found["muxly_inbox_events"] == {("app", "signups"): 3} and found["muxly_inbox_bytes"] == {("app", "signups"): 3}
    assert found["muxly_inbox_oldest_timestamp_seconds"] == {
        ("app", "signups"): dt.datetime(2026, 3, 1, 6, 0, 1, tzinfo=dt.UTC).timestamp()
    }
    assert len(found["muxly_rate_budget_paused_seconds"]) == 1
    assert found["muxly_delivery_lag_records"][("big_orders.hook",)] == 4, "another state knows nothing of what was delivered"
