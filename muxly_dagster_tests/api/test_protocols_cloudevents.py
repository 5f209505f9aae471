"""CloudEvents by HTTP, as the `cloudevents` library sends them, at the address of a stream."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from muxly_dagster_tests.api.collector import Collector, collecting


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """One server for all tests of this file."""
    with collecting(tmp_path_factory.mktemp("cloudevents")) as found:
        yield found


@pytest.fixture
def fresh(server: Collector) -> Collector:
    """The same, with nothing in its inbox."""
    server.clear()
    return server


def post(collector: Collector, body: Any, headers: dict[str, str]) -> httpx.Response:
    """To a stream of web."""
    return httpx.post(f"{collector.url}/v1/collect/web/orders", content=body, headers={**headers, **collector.signed("web")})


def event(id: str, subject: str = "Zoë's order, 100%") -> CloudEvent:
    """An event as the library makes it."""
    return CloudEvent(
        {"id": id, "source": "/shop", "type": "order.paid", "subject": subject, "datacontenttype": "application/json"}, {"n": 1}
    )


def test_the_librarys_events_are_stored_once_in_whatever_mode_they_come(fresh: Collector) -> None:
    for write, accepted in ((to_binary_event, 1), (to_structured_event, 0)):
        message = write(event("1"))
        answer = post(fresh, message.body, dict(message.headers))
        assert answer.status_code == 202
        assert (answer.json()["accepted"], answer.json()["duplicate"]) == (accepted, 1 - accepted)
    (stored,) = fresh.events("web", "orders")
    assert (stored["ce_id"], stored["ce_subject"], stored["n"]) == ("1", "Zoë's order, 100%", 1)
    assert fresh.ids("web", "orders") == ["/shop 1"]


def test_a_batch_says_which_of_its_events_are_none(fresh: Collector) -> None:
    batch = [json.loads(to_structured_event(event(id)).body) for id in ("2", "3")]
    answer = post(fresh, json.dumps([batch[0], {"id": "4"}, batch[1]]), {"content-type": "application/cloudevents-batch+json"})
    assert answer.json() == {
        "accepted": 2,
        "duplicate": 0,
        "rejected": 1,
        "quarantined": 0,
        "errors": [{"index": 1, "reason": "specversion is missing"}],
    }


def test_other_formats_and_rubbish_are_refused(fresh: Collector) -> None:
    assert post(fresh, b"", {"content-type": "application/cloudevents+avro"}).status_code == 415
    assert post(fresh, b"{", {"content-type": "application/cloudevents+json"}).status_code == 400
    many = json.dumps([{}] * 60_000)
    assert post(fresh, many, {"content-type": "application/cloudevents-batch+json"}).status_code == 413
    assert not fresh.events("web", "orders")
