"""Metrics pushed to a real Pushgateway: a group for each delivery, all of it at once."""

from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from muxly_dagster.destinations.prometheus import Prometheus
from muxly_dagster.errors import ConfigurationError, RetryLater, SignInError
from muxly_dagster.http import Retries
from muxly_dagster.services import OwnMetrics, Services
from muxly_dagster.testing import DestinationContract, changes, delivery
from muxly_dagster_tests.destinations.metering import TARGET, get
from muxly_dagster_tests.peers import prometheus as peer

NEEDS_PUSHGATEWAY = pytest.mark.skipif(bool(peer.missing("prometheus-pushgateway")), reason=peer.missing("prometheus-pushgateway"))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with peer.pushgateway(tmp_path_factory.mktemp("pushgateway")) as gateway:
        yield gateway


def pushed(gateway: str, job: str, *metrics: dict[str, Any], **fields: Any) -> Prometheus:
    """A destination that pushes to the real one, under a job of the test's own."""
    given = {"mode": "pushgateway", "url": gateway, "job": job, "retries": Retries(attempts=1)} | fields
    return Prometheus(metrics=metrics, **given).equipped(Services(metrics=OwnMetrics()))


def held(gateway: str, job: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """What the Pushgateway shows of a job: values by name and own labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in parse_text(get(f"{gateway}/metrics")[1].decode()):
        for sample in family.samples:
            if sample.labels.get("job") == job and not sample.name.startswith("push_"):
                labels = tuple(sorted((n, v) for n, v in sample.labels.items() if n not in ("job", "instance")))
                found.setdefault(sample.name, {})[labels] = sample.value
    return found


RECORD = {"name": "record", "type": "gauge", "help": "One for each.", "labels": ["id"]}


@NEEDS_PUSHGATEWAY
class TestPushgateway(DestinationContract):
    """A gauge whose label is the key has one series for each record; what a record's other columns hold is not in it, so the tests that
    read them back look at the keys alone. A Pushgateway checks no credentials, so there is no wrong one."""

    columns = ()

    @pytest.fixture
    def destination(self, gateway: str, request: pytest.FixtureRequest) -> Prometheus:
        self.gateway, self.job = gateway, request.node.name
        return pushed(gateway, self.job, RECORD)

    def stored(self, destination: Prometheus) -> list[dict[str, Any]]:
        return [{"id": int(dict(labels)["id"])} for labels in held(self.gateway, self.job).get("record", {})]

    def away(self) -> Prometheus:
        return pushed("http://127.0.0.1:1", "away", RECORD)

    def test_what_is_delivered_arrives(self, destination: Any) -> None:
        receipt = destination.deliver(delivery([{"id": 1, "name": "Ada"}, {"id": 2, "name": None}]))
        assert (receipt.accepted, receipt.refused, receipt.upto, receipt.retry) == (2, (), None, None)
        assert self.stored(destination) == [{"id": 1}, {"id": 2}]

    def test_the_last_change_of_a_key_wins(self, gateway: str) -> None:
        target = pushed(gateway, "last", RECORD | {"value": "n"})
        target.deliver(delivery([{"id": 1, "n": 1}, {"id": 1, "n": 2}]))
        assert target.deliver(delivery([{"id": 1, "n": 3}], after=2)).accepted == 1
        assert held(gateway, "last") == {"record": {(("id", "1"),): 3}}

    def test_a_column_that_appears_later_is_taken(self, destination: Any) -> None:
        destination.deliver(delivery([{"id": 1}]))
        destination.deliver(delivery([{"id": 2, "city": "Berlin"}], after=1))
        assert self.stored(destination) == [{"id": 1}, {"id": 2}]


@NEEDS_PUSHGATEWAY
@pytest.mark.parametrize("job", ["plain", "with/slash", "Grüße 100%", "..", "a?b#c"])
def test_a_group_is_named_by_any_text(gateway: str, job: str) -> None:
    target = pushed(gateway, job, {"name": "orders", "type": "counter", "help": "Orders."}, grouping={"env": "a/b", "empty": ""})
    target.deliver(delivery([{"id": 1}]))
    assert held(gateway, job) == {"orders_total": {(("env", "a/b"),): 1}} or held(gateway, job) == {
        "orders_total": {(("empty", ""), ("env", "a/b")): 1}
    }


@NEEDS_PUSHGATEWAY
def test_a_push_is_all_there_is_and_repeating_it_counts_nothing_twice(gateway: str) -> None:
    orders = {"name": "orders", "type": "counter", "help": "Orders.", "labels": ["country"]}
    target = pushed(gateway, "whole", orders, RECORD)
    rows = delivery([{"id": 1, "country": "de"}, {"id": 2, "country": "fr"}])
    for _ in range(2):
        target.deliver(rows)
    assert held(gateway, "whole")["orders_total"] == {(("country", "de"),): 1, (("country", "fr"),): 1}
    target.deliver(delivery([{"id": n, "country": "de"} for n in (1, 2)], ops=["delete"] * 2, after=2))
    assert "record" not in held(gateway, "whole")
    adding = pushed(gateway, "added", orders, RECORD, method="POST")
    adding.deliver(rows)
    other_route = delivery([{"id": 9, "country": "it"}], delivery_id="small_deals.warehouse")
    adding.deliver(other_route)
    assert len(held(gateway, "added")["orders_total"]) == 3  # each route has a group of its own


@NEEDS_PUSHGATEWAY
def test_values_that_the_pushgateway_does_not_take_are_a_matter_for_a_person(gateway: str) -> None:
    pushed(gateway, "one", {"name": "clash", "type": "counter", "help": "A."}).deliver(delivery([{"id": 1}]))
    target = pushed(gateway, "two", {"name": "clash_total", "type": "counter", "help": "Others."}, grouping={"other": "x"})
    try:
        receipt = target.deliver(delivery([{"id": 1}]))
    except ConfigurationError as error:
        assert "does not take the values" in str(error)
    else:
        assert receipt.accepted == 1
    assert target.check().status == "ok"


@pytest.mark.parametrize(
    ("status", "kind"), [(400, ConfigurationError), (401, SignInError), (404, ConfigurationError), (429, RetryLater), (503, RetryLater)]
)
def test_a_push_that_fails_keeps_the_delivery_where_it_was(status: int, kind: type[Exception]) -> None:
    with peer.writer() as receiver:
        receiver.troubles = [(status, {})]
        target = pushed(receiver.url, "failing", RECORD)
        with pytest.raises(kind):
            target.deliver(delivery(changes([{"id": 1}])))
        assert target.position(TARGET, "0b8e1f9c") is None
