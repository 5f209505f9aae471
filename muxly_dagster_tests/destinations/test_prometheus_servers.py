"""Metrics at a real Prometheus: scraped from the command that serves them, written to it, and killed in between."""

import datetime as dt
import gzip
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from muxly_dagster.api.metrics import metrics_app
from muxly_dagster.destinations.prometheus import Prometheus
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.http import Retries
from muxly_dagster.runtime import Runtime
from muxly_dagster.services import OwnMetrics, Services
from muxly_dagster.settings import Settings
from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.metering import TARGET, get
from muxly_dagster_tests.peers import prometheus as peer

NEEDS_PROMETHEUS = pytest.mark.skipif(bool(peer.missing("prometheus")), reason=peer.missing("prometheus"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[peer.Server]:
    with peer.prometheus(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


def project(folder: Path, *, text: str) -> Settings:
    """A project in a folder, with its home beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "muxly.yaml").write_text(text, "utf-8")
    return Settings.from_environ(environment(folder))


def environment(folder: Path) -> dict[str, str]:
    return {"MUXLY_PROJECT": str(folder / "muxly.yaml"), "MUXLY_HOME": str(folder / ".muxly")}


SHOP = """
sources:
  shop: {connector: files, path: ./data, pulls: {orders: {glob: "orders*.csv", key: [id]}}}
routes:
  sold: {from: shop.orders, to: [numbers]}
destinations:
  numbers:
    type: prometheus
    metrics:
      - {name: orders, type: counter, help: Orders so far., labels: [country]}
      - {name: sales, type: counter, unit: euros, help: Sold so far., value: amount}
      - {name: order, type: histogram, unit: euros, help: Sizes of orders., value: amount, buckets: [10, 100]}
      - {name: last_order, type: gauge, unit: euros, help: Each order., value: amount, labels: [id]}
"""


def shop(folder: Path, text: str = SHOP) -> Settings:
    """A project whose orders have been delivered."""
    settings = project(folder, text=text)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "orders.csv").write_text("id,country,amount\n1,de,5\n2,de,50\n3,fr,500\n")
    with Runtime.open(settings, {}) as runtime:
        runtime.run("shop.orders")
        for name in runtime.assembly.targets:
            runtime.run(name)
    return settings


# ---- scraped -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a project, and the address at which `muxly serve metrics` shows its metrics."""
    folder = tmp_path_factory.mktemp("shop")
    shop(folder)
    with serving(folder) as address:
        yield folder, address


class serving:
    """`muxly serve metrics` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> str:
        command = [sys.executable, "-m", "muxly_dagster", "serve", "metrics", "--port", "0"]
        environ = os.environ | environment(self._folder) | {"PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert self.process.stderr is not None
        self.said = self.process.stderr.readline()
        if not self.said.startswith("metrics: http://"):
            self.process.kill()
            raise AssertionError(self.said + self.process.stderr.read())
        address = self.said.split()[1]
        peer.until(lambda: peer.answers(address), address)
        return address

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)
        self.code = self.process.returncode


def test_the_format_goes_by_what_is_asked_for(served: tuple[Path, str]) -> None:
    _, address = served
    headers, text = get(address)
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert headers["vary"].lower().split(", ")[0] == "accept"
    assert {family.name for family in parse_text(text.decode())} == {"orders", "sales_euros", "order_euros", "last_order_euros"}
    headers, modern = get(address, Accept="application/openmetrics-text; version=1.0.0", Accept_Encoding="gzip")
    assert headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert headers["content-encoding"] == "gzip"
    orders = next(f for f in parse_openmetrics(gzip.decompress(modern).decode()) if f.name == "orders")
    assert {s.labels["country"]: s.value for s in orders.samples if s.name == "orders_total"} == {"de": 2, "fr": 1}
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(urllib.request.Request(address, method="POST"), timeout=30)
    if not peer.missing("promtool"):
        assert peer.lint(text) == ""


@NEEDS_PROMETHEUS
def test_prometheus_scrapes_what_is_served(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    with peer.prometheus(tmp_path, address.split("/")[2]) as scraper:
        found = peer.until(lambda: scraper.values("orders_total", time.time()), "a scrape")
        assert found == {(("country", "de"),): 2, (("country", "fr"),): 1}
        assert scraper.values("histogram_quantile(0.5, order_euros_bucket)", time.time()) == {(): 55}
        meta = scraper.ask("metadata", metric="sales_euros")
        assert meta == {"sales_euros": [{"type": "counter", "help": "Sold so far.", "unit": "euros"}]}  # it was read as OpenMetrics
        (target,) = scraper.ask("targets")["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
        # Another process delivers more, and the next scrape shows it.
        (folder / "data" / "orders.csv").write_text("id,country,amount\n1,de,5\n2,de,50\n3,fr,500\n4,fr,1\n")
        with Runtime.open(Settings.from_environ(environment(folder)), {}) as runtime:
            runtime.run("shop.orders")
            runtime.run("sold.numbers")
        more = peer.until(lambda: scraper.values("orders_total == 2", time.time()).get((("country", "fr"),)), "another scrape")
        assert more == 2


def test_stopping_the_command_is_no_error(tmp_path: Path) -> None:
    shop(tmp_path)
    command = serving(tmp_path)
    with command as address:
        assert b"orders_total" in get(address)[1]
    assert command.code in (0, 130)


def test_a_project_with_nothing_to_show_and_one_with_a_clash_are_told(tmp_path: Path) -> None:
    bare = project(tmp_path / "bare", text='sources:\n  a: {connector: files, path: ., pulls: {b: {glob: "*.csv"}}}\n')
    with Runtime.open(bare, {}) as runtime, pytest.raises(ConfigurationError, match="no route to a destination"):
        metrics_app(runtime)
    clash = SHOP.replace("to: [numbers]", "to: [numbers, others]")
    clash += "  others: {type: prometheus, metrics: [{name: orders, type: gauge}]}\n"
    with Runtime.open(project(tmp_path / "clash", text=clash), {}) as runtime, pytest.raises(ConfigurationError, match="one is a counter"):
        metrics_app(runtime)


def test_a_port_that_is_taken_is_told(served: tuple[Path, str]) -> None:
    folder, address = served
    port = address.split(":")[2].partition("/")[0]
    command = [sys.executable, "-m", "muxly_dagster", "serve", "metrics", "--port", port]
    done = subprocess.run(command, env=os.environ | environment(folder), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in done.stderr


# ---- killed ------------------------------------------------------------------------------------------------------------

_KILLED = """
import importlib, os, signal, sys
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

module, _, name = sys.argv[2].partition(":")
owner = importlib.import_module(module)
*path, last = name.split(".")
for part in path:
    owner = getattr(owner, part)
setattr(owner, last, die)
with Runtime.open(Settings.from_environ(os.environ), os.environ) as runtime:
    runtime.run(sys.argv[1])
"""


def test_killed_between_the_values_and_the_ledger_everything_is_counted_once(tmp_path: Path) -> None:
    settings = shop(tmp_path)
    more = "".join(f"{n},de,1\n" for n in range(10, 40)) + "99,de,-1\n" + "".join(f"{n},fr,2\n" for n in range(40, 60))
    with (tmp_path / "data" / "orders.csv").open("a") as file:
        file.write(more)
    with Runtime.open(settings, {}) as runtime:
        runtime.run("shop.orders")
    killed_at(tmp_path, "muxly_dagster.state:Ledger.record")
    with Runtime.open(settings, {}) as runtime:
        outcome = runtime.run("sold.numbers")
        assert (outcome.read, outcome.accepted, outcome.refused) == (51, 50, 1)
        assert [json.loads(letter.record)["key"] for letter in runtime.state.ledger.dead_letters("sold")] == ["99"]
        assert runtime.state.ledger.totals("sold.numbers") == {"read": 54, "accepted": 53, "refused": 1, "unrouted": 0}
        for _ in range(2):
            samples = _samples(runtime)
            assert (samples["orders_total", "de"], samples["orders_total", "fr"], samples["sales_euros_total", ""]) == (32, 21, 625)
            again = runtime.run("sold.numbers", from_start=True)  # everything once more changes nothing
            assert (again.accepted, again.refused) == (53, 1)


@pytest.mark.parametrize(
    "point",
    [
        "muxly_dagster.destinations.prometheus:writing.Sender.send",
        "muxly_dagster.destinations.prometheus:confirm",
        "muxly_dagster.state:Ledger.record",
    ],
)
def test_killed_before_and_after_a_remote_write_the_receiver_holds_each_change_once(tmp_path: Path, point: str) -> None:
    with peer.writer() as receiver:
        text = SHOP.replace("type: prometheus\n", f"type: prometheus\n    mode: remote_write\n    url: {receiver.url}\n")
        settings = shop(tmp_path, text)
        with (tmp_path / "data" / "orders.csv").open("a") as file:
            file.write("4,de,7\n5,fr,-1\n6,it,100\n")
        with Runtime.open(settings, {}) as runtime:
            runtime.run("shop.orders")
        killed_at(tmp_path, point)
        with Runtime.open(settings, {}) as runtime:
            runtime.run("sold.numbers")
            assert runtime.state.ledger.totals("sold.numbers") == {"read": 6, "accepted": 5, "refused": 1, "unrouted": 0}
            runtime.run("sold.numbers", from_start=True)
        totals = receiver.values("orders_total")
        assert totals == {(("country", "de"),): 3, (("country", "fr"),): 1, (("country", "it"),): 1}
        assert receiver.values("sales_euros_total") == {(): 662}
        assert receiver.values("order_euros_bucket")[("le", "10.0"),] == 2


def killed_at(folder: Path, point: str) -> None:
    """Run the delivery in a process that is killed where it comes by a point."""
    done = subprocess.run([sys.executable, "-c", _KILLED, "sold.numbers", point], env=os.environ | environment(folder), timeout=120)
    assert done.returncode == -signal.SIGKILL


def _samples(runtime: Runtime) -> dict[tuple[str, str], float]:
    destination = runtime.assembly.targets["sold.numbers"].destination
    assert isinstance(destination, Prometheus)
    families = parse_text(destination._text(destination.shown("sold.numbers", "sold.numbers").series).decode())
    return {(s.name, s.labels.get("country", "")): s.value for family in families for s in family.samples}


# ---- remote write to a real Prometheus ---------------------------------------------------------------------------------


def written(server: peer.Server, job: str, *metrics: dict[str, Any], **fields: Any) -> Prometheus:
    """A destination that writes to the real one, under a job of the test's own."""
    given = {"mode": "remote_write", "url": server.write_url, "job": job, "retries": Retries(attempts=1)} | fields
    return Prometheus(metrics=metrics, **given).equipped(Services(metrics=OwnMetrics()))


NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)


def at(seconds: float) -> dt.datetime:
    """A moment near enough to now for a Prometheus to take."""
    return NOW + dt.timedelta(seconds=seconds - 600)


@NEEDS_PROMETHEUS
def test_a_prometheus_of_version_1_is_fallen_back_to_and_holds_the_values(server: peer.Server) -> None:
    target = written(
        server,
        "values",
        {"name": "sales", "type": "counter", "unit": "euros", "value": "amount", "labels": ["country"]},
        {"name": "wait", "type": "histogram", "value": "amount", "buckets": [10, 100]},
        timestamp="at",
    )
    assert target.check().status == "ok"
    rows = [{"id": n, "country": country, "amount": amount, "at": at(n)} for n, (country, amount) in enumerate([("de", 5), ("fr", 50)])]
    receipt = target.deliver(delivery(rows))
    assert (receipt.accepted, receipt.detail["protocol"]) == (2, "1.0")
    target.deliver(delivery([{"id": 9, "country": "de", "amount": 7, "at": at(9)}], after=2))
    target.deliver(delivery([{"id": 9, "country": "de", "amount": 7, "at": at(9)}], after=2))
    now = at(20).timestamp()
    assert server.values('sales_euros_total{job="values"}', now) == {(("country", "de"),): 12, (("country", "fr"),): 50}
    assert server.values('wait_sum{job="values"}', now) == {(): 62}
    assert server.values('histogram_quantile(0.5, wait_bucket{job="values"})', now) == {(): 7.5}
    (found,) = server.ask("series", **{"match[]": 'wait_count{job="values"}'})
    assert found == {"__name__": "wait_count", "job": "values", "instance": TARGET}


@NEEDS_PROMETHEUS
def test_a_history_is_kept_and_what_comes_too_late_is_a_dead_letter(server: peer.Server) -> None:
    target = written(server, "history", {"name": "level", "type": "gauge", "value": "amount"}, timestamp="at")
    rows = [{"id": n, "amount": n, "at": at(n)} for n in (1, 2, 5)]
    assert target.deliver(delivery(rows)).refused == ()
    receipt = target.deliver(delivery([{"id": 3, "amount": 3, "at": at(3)}, {"id": 6, "amount": 6, "at": at(6)}], after=3))
    assert (receipt.accepted, [r.seq for r in receipt.refused]) == (1, [4])
    assert "out of order" in receipt.refused[0].reason
    found = server.samples('level{job="history"}', at(0).timestamp(), at(20).timestamp())
    assert found == [(at(n).timestamp(), n) for n in (1, 2, 5, 6)]
    old = target.deliver(delivery([{"id": 7, "amount": 7, "at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}], after=5))
    assert [r.seq for r in old.refused] == [6]
    assert "out of" in old.refused[0].reason


@NEEDS_PROMETHEUS
def test_a_series_that_ends_is_gone_at_once(server: peer.Server) -> None:
    target = written(server, "stale", {"name": "stock", "type": "gauge", "value": "amount", "labels": ["id"]}, timestamp="at")
    target.deliver(delivery([{"id": 1, "amount": 1, "at": at(1)}, {"id": 2, "amount": 2, "at": at(2)}]))
    selector = 'stock{job="stale"}'
    assert set(server.values(selector, at(5).timestamp())) == {(("id", "1"),), (("id", "2"),)}
    target.deliver(delivery([{"id": 1, "amount": 1, "at": at(1)}], ops=["delete"], after=2))
    assert set(server.values(selector, at(5).timestamp())) == {(("id", "2"),)}


@NEEDS_PROMETHEUS
def test_a_prometheus_that_was_not_told_to_take_writes_is_explained(tmp_path: Path, server: peer.Server) -> None:
    target = Prometheus(
        metrics=[{"name": "orders", "type": "counter"}],
        mode="remote_write",
        url=f"{server.url}/api/v1/nothing",
        retries=Retries(attempts=1),
    )
    with pytest.raises(ConfigurationError, match="nothing takes samples at this address"):
        target.deliver(delivery([{"id": 1}]))
    result = target.check()
    assert result.status == "failed" and "--web.enable-remote-write-receiver" in result.do
