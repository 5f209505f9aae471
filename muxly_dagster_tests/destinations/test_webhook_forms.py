"""What a webhook sends: events that the cloudevents library reads, bodies and paths made of templates, deletes by their method."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from muxly_dagster.destination import Delivery
from muxly_dagster.destinations.webhook import Webhook
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.testing import delivery
from muxly_dagster_tests.http.server import Asked, Server, answer

NASTY = 'Zoë "1" %41 \u2028 日本 \U0001f469‍\U0001f467 ..'


@pytest.fixture
def receiver() -> Iterator[Server]:
    with Server(lambda asked: answer()) as server:
        yield server


def webhook(server: Server, **fields: Any) -> Webhook:
    return Webhook(**{"url": f"{server.url}/in?source=a", "allow": ["127.0.0.1"], "order": "strict", **fields})


def bodies(server: Server) -> list[Any]:
    return [json.loads(asked.body) for asked in server.asked]


def event_of(asked: Asked) -> BaseCloudEvent:
    """The event as a receiver's library reads it."""
    return from_http_event(HTTPMessage(headers=asked.headers, body=asked.body))


def attributes(event: BaseCloudEvent) -> dict[str, Any]:
    return {
        "id": event.get_id(),
        "source": event.get_source(),
        "type": event.get_type(),
        "subject": event.get_subject(),
        "time": event.get_time().isoformat() if event.get_time() else None,
        "dataschema": event.get_dataschema(),
        "partitionkey": event.get_extension("partitionkey"),
        "sequence": event.get_extension("sequence"),
    }


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_an_event_is_read_by_the_cloudevents_library(receiver: Server, mode: str) -> None:
    hook = webhook(receiver, form="cloudevents", cloudevents={"mode": mode})
    hook.deliver(delivery([{"id": NASTY, "tags": ["a"]}], after=41))
    (asked,) = receiver.asked
    event = event_of(asked)
    told = attributes(event)
    schema = told.pop("dataschema")
    assert told == {
        "id": "crm.deals:0b8e1f9c:42",
        "source": "/hubspot/crm.deals",
        "type": "muxly.record.upsert",
        "subject": NASTY,
        "time": "2026-01-02T03:04:05+00:00",
        "partitionkey": NASTY,
        "sequence": "00000000000000000042",
    }
    assert schema is not None and schema.startswith("urn:muxly:schema:crm.deals:")
    assert event.get_specversion() == "1.0"
    assert event.get_data() == {"id": NASTY, "tags": ["a"]}
    assert asked.headers["webhook-id"] == "crm.deals:0b8e1f9c:42"
    expected = "application/cloudevents+json; charset=utf-8" if mode == "structured" else "application/json"
    assert asked.headers["content-type"] == expected


def test_a_batch_of_events_is_a_list_of_them(receiver: Server) -> None:
    hook = webhook(receiver, form="cloudevents", batch=2)
    hook.deliver(delivery([{"id": 1}, {"id": 2}, {"id": 3}], ops=["upsert", "delete", "append"]))
    assert {asked.headers["content-type"] for asked in receiver.asked} == {"application/cloudevents-batch+json; charset=utf-8"}
    events = [JSONFormat().read(None, json.dumps(each)) for body in bodies(receiver) for each in body]
    assert [event.get_type() for event in events] == ["muxly.record.upsert", "muxly.record.delete", "muxly.record.append"]
    assert [event.get_data() for event in events] == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert len({(event.get_source(), event.get_id()) for event in events}) == 3


def test_source_and_type_of_events_may_be_templates(receiver: Server) -> None:
    made = {"source": "https://acme.example/{{ table }}", "type": "com.acme.{{ op }}{{ suffix }}"}
    hook = webhook(receiver, form="cloudevents", cloudevents=made)
    hook.deliver(delivery([{"id": 1, "suffix": ".v2"}]))
    event = event_of(receiver.asked[0])
    assert (event.get_source(), event.get_type()) == ("https://acme.example/crm.deals", "com.acme.upsert.v2")


def test_data_alone_single_and_as_a_list(receiver: Server) -> None:
    webhook(receiver, form="data").deliver(delivery([{"id": 1, "name": NASTY}]))
    webhook(receiver, form="data", batch=2).deliver(delivery([{"id": 1}, {"id": 2}]))
    webhook(receiver, form="data", batch=2, wrap="").deliver(delivery([{"id": 1}, {"id": 2}]))
    assert bodies(receiver) == [{"id": 1, "name": NASTY}, {"records": [{"id": 1}, {"id": 2}]}, [{"id": 1}, {"id": 2}]]


def test_a_body_is_a_tree_of_templates_that_keeps_the_types_of_values(receiver: Server) -> None:
    body = {"text": "{{ name }} is worth {{ amount }}", "fields": {"amount": "{{ amount }}", "tags": "{{ tags }}"}, "to": ["{{ op }}", 7]}
    hook = webhook(receiver, body=body)
    hook.deliver(delivery([{"id": 1, "name": NASTY, "amount": 12.5, "tags": ["a", {"b": None}]}]))
    assert bodies(receiver) == [
        {"text": f"{NASTY} is worth 12.5", "fields": {"amount": 12.5, "tags": ["a", {"b": None}]}, "to": ["upsert", 7]}
    ]


def test_a_body_that_is_a_text_is_sent_as_it_is(receiver: Server) -> None:
    webhook(receiver, body="deal={{ id }}&name={{ name | urlencode }}").deliver(delivery([{"id": 1, "name": "a&b"}]))
    typed = {"Content-Type": "application/x-www-form-urlencoded"}
    webhook(receiver, body="deal={{ id }}", headers=typed).deliver(delivery([{"id": 2}]))
    first, second = receiver.asked
    assert (first.body, first.headers["content-type"]) == (b"deal=1&name=a%26b", "text/plain; charset=utf-8")
    assert (second.body, second.headers["content-type"]) == (b"deal=2", "application/x-www-form-urlencoded")


def test_a_batch_in_a_template_has_all_of_its_records(receiver: Server) -> None:
    hook = webhook(receiver, batch=2, body={"count": "{{ count }}", "ids": "{{ records | map(attribute='id') | list }}"})
    hook.deliver(delivery([{"id": 1}, {"id": 2}, {"id": 3}]))
    assert bodies(receiver) == [{"count": 2, "ids": [1, 2]}, {"count": 1, "ids": [3]}]


def routed(rules: list[str], templates: dict[str, Any]) -> Delivery:
    plain = delivery([{"id": n} for n in range(1, len(rules) + 1)])
    return Delivery(plain.id, plain.table, plain.table_id, plain.key, plain.rows, 0, len(rules), "hubspot", "run-1", rules, templates)


def test_a_rule_may_say_the_body_anew_and_shares_no_request_with_another(receiver: Server) -> None:
    stretch = routed(["big", "big", "small", "big"], {"big": {"body": {"big": "{{ records | map(attribute='id') | list }}"}}})
    webhook(receiver, batch=3, form="data").deliver(stretch)
    assert bodies(receiver) == [{"big": [1, 2]}, {"records": [{"id": 3}]}, {"big": [4]}]
    assert [asked.headers["webhook-id"].rpartition(":")[2] for asked in receiver.asked] == ["1-2", "3-3", "4-4"]


def test_a_template_knows_the_rule_that_sent_its_records(receiver: Server) -> None:
    webhook(receiver, body={"rule": "{{ rule }}", "count": "{{ count }}"}, batch=5).deliver(routed(["big", "big", "small"], {}))
    webhook(receiver, form="data", batch=5).deliver(routed(["big", "big", "small"], {}))
    assert bodies(receiver) == [{"rule": "big", "count": 2}, {"rule": "small", "count": 1}, {"records": [{"id": 1}, {"id": 2}, {"id": 3}]}]


def test_a_template_that_names_no_column_stops_before_anything_is_sent(receiver: Server) -> None:
    for settings_ in ({"body": {"a": "{{ nme }}"}}, {"path": "/{{ nme }}"}, {"form": "cloudevents", "cloudevents": {"type": "{{ nme }}"}}):
        with pytest.raises(ConfigurationError, match="nme"):
            webhook(receiver, **settings_).deliver(delivery([{"id": 1, "name": "a"}]))
    with pytest.raises(ConfigurationError, match="nme"):
        webhook(receiver).deliver(routed(["big"], {"big": {"body": "{{ nme }}"}}))
    assert receiver.asked == []


def test_a_template_that_fails_on_one_record_refuses_that_record(receiver: Server) -> None:
    hook = webhook(receiver, body={"share": "{{ 1 / amount }}"})
    receipt = hook.deliver(delivery([{"id": 1, "amount": 2}, {"id": 2, "amount": 0}, {"id": 3, "amount": 4}]))
    assert (receipt.accepted, [refusal.seq for refusal in receipt.refused]) == (2, [2])
    assert "ZeroDivisionError" in receipt.refused[0].reason
    receipt = webhook(receiver, batch=3, body={"shares": "{{ 1 / records[-1].amount }}"}).deliver(
        delivery([{"id": 1, "amount": 2}, {"id": 2, "amount": 0}, {"id": 3, "amount": 0}])
    )
    assert (receipt.accepted, [refusal.seq for refusal in receipt.refused]) == (1, [2, 3])


# ---- paths and methods --------------------------------------------------------------------------------------------------------


def test_a_path_is_made_of_the_record_and_keeps_the_addresss_own_query(receiver: Server) -> None:
    hook = webhook(receiver, method="PUT", path="/deals/{{ id }}?name={{ name }}")
    hook.deliver(delivery([{"id": "a/b?c#d", "name": "x&y=z"}]))
    (asked,) = receiver.asked
    assert (asked.method, asked.target) == ("PUT", "/in/deals/a%2Fb%3Fc%23d?source=a&name=x%26y%3Dz")


@pytest.mark.parametrize("value", ["", ".", "..", "%2e%2E", ".%2e", None])
def test_a_value_that_would_lead_elsewhere_is_refused(receiver: Server, value: str | None) -> None:
    hook = webhook(receiver, method="PUT", path="/deals/{{ name }}")
    receipt = hook.deliver(delivery([{"id": 1, "name": "ok"}, {"id": 2, "name": value}]))
    if value and "%" in value:  # a percent sign of the record's own is encoded, so it is a name like any other
        assert [asked.path for asked in receiver.asked][1] == "/in/deals/" + value.replace("%", "%25")
    else:
        assert [refusal.seq for refusal in receipt.refused] == [2]
        assert [asked.path for asked in receiver.asked] == ["/in/deals/ok"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(st.characters(exclude_categories=("Cs",)), max_size=30))
def test_no_value_changes_the_host_or_leaves_its_place_in_the_path(receiver: Server, value: str) -> None:
    receiver.asked.clear()
    hook = webhook(receiver, method="PUT", path="/deals/{{ name }}/notes")
    receipt = hook.deliver(delivery([{"id": 1, "name": value}]))
    assert receipt.accepted + len(receipt.refused) == 1
    assert len(receiver.asked) == receipt.accepted
    for asked in receiver.asked:
        start, first, second, name, end = asked.path.split("/")
        assert (start, first, second, end, asked.query) == ("", "in", "deals", "notes", [("source", "a")])
        assert name


def test_deletes_are_sent_like_changes_unless_they_go_by_their_method(receiver: Server) -> None:
    stretch = delivery([{"id": 1, "name": "a"}, {"id": 1, "name": "a"}], ops=["upsert", "delete"])
    webhook(receiver).deliver(stretch)
    assert [(asked.method, json.loads(asked.body)["op"]) for asked in receiver.asked] == [("POST", "upsert"), ("POST", "delete")]
    receiver.asked.clear()
    hook = webhook(receiver, method="PATCH", path="/deals/{{ id }}", deletes="delete", form="data")
    hook.deliver(stretch)
    assert [(asked.method, asked.path, asked.body) for asked in receiver.asked] == [
        ("PATCH", "/in/deals/1", b'{"id":1,"name":"a"}'),
        ("DELETE", "/in/deals/1", b""),
    ]
    assert hook.passes_deletes and not webhook(receiver).passes_deletes
    assert [asked.headers["webhook-id"] for asked in receiver.asked] == ["crm.deals:0b8e1f9c:1", "crm.deals:0b8e1f9c:2"]


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_gone_already_is_deleted(status: int) -> None:
    with Server(lambda asked: answer(status if asked.method == "DELETE" else 200)) as server:
        hook = webhook(server, path="/deals/{{ id }}", deletes="delete")
        receipt = hook.deliver(delivery([{"id": 1}, {"id": 1}, {"id": 2}], ops=["upsert", "delete", "upsert"]))
    assert (receipt.accepted, receipt.refused) == (3, ())


def test_a_404_with_a_path_is_about_the_record_however_many_there_are() -> None:
    with Server(lambda asked: answer(404)) as server:
        receipt = webhook(server, method="PATCH", path="/deals/{{ id }}").deliver(delivery([{"id": n} for n in range(1, 41)]))
    assert (receipt.accepted, len(receipt.refused)) == (0, 40)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"batch": 2, "path": "/{{ id }}"}, "leave `batch` at 1"),
        ({"deletes": "delete"}, "needs a `path`"),
        ({"batch": 2, "form": "cloudevents", "cloudevents": {"mode": "binary"}}, "no binary mode for batches"),
        ({"body": {"a": "{{ open"}}, "is no template"),
        ({"path": "/{% if %}"}, "is no template"),
        ({"signature": {"kind": "github"}}, "go together"),
        ({"secrets": ["hunter2hunter2"]}, "go together"),
        ({"signature": {"kind": "github"}, "secrets": ["hunter2hunter2", "b"]}, "room for one signature"),
        ({"allow": ["10.0.0.0/99"]}, "no network such as"),
        ({"retries": {"schedule": ["soon"]}}, "not a length of time"),
        ({"retries": {"schedule": ["5s"], "attempts": 3}}, "leave out `attempts`"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_way_out(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        Webhook(**{"url": "https://example.com/in", **fields})
    assert "hunter2" not in str(caught.value)


# ---- looking ahead --------------------------------------------------------------------------------------------------------------


def test_what_would_be_sent_is_shown_and_nothing_is_sent(receiver: Server) -> None:
    stretch = delivery([{"id": 1, "amount": 2}, {"id": 2, "amount": 0}], ops=["upsert", "delete"])
    single = webhook(receiver, form="data").render(stretch)
    assert [message.seqs for message in single] == [(1,), (2,)]
    assert [json.loads(message.text) for message in single] == [{"id": 1, "amount": 2}, {"id": 2, "amount": 0}]
    (batch,) = webhook(receiver, batch=5, form="cloudevents").render(stretch)
    assert batch.seqs == (1, 2) and len(json.loads(batch.text)) == 2
    assert [message.text for message in webhook(receiver, body={"t": "{{ 1 / amount }}"}).render(stretch)] == ['{"t":0.5}']
    deleted = webhook(receiver, path="/deals/{{ id }}", deletes="delete").render(stretch)[1]
    assert deleted.text == "DELETE /deals/2"
    assert receiver.asked == []


def test_what_is_shown_is_what_is_sent(receiver: Server) -> None:
    stretch = delivery([{"id": n, "name": NASTY} for n in range(5)])
    for fields in ({}, {"batch": 2}, {"form": "cloudevents"}, {"body": ["{{ id }}", "{{ name }}"]}):
        receiver.asked.clear()
        hook = webhook(receiver, **fields)
        hook.deliver(stretch)
        assert [asked.body.decode() for asked in receiver.asked] == [message.text for message in hook.render(stretch)]
