"""The webhook connector: every call of a job comes into the lake once, whatever its body holds."""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster import records
from muxly_dagster.assembly import load_assembly
from muxly_dagster.connector import Batch, Connector
from muxly_dagster.connectors.webhook import Webhook, WebhookPull, reading
from muxly_dagster.intake import Call, OwnCalls
from muxly_dagster.runtime import Runtime
from muxly_dagster.services import Services
from muxly_dagster.settings import Settings
from muxly_dagster.state import Start
from muxly_dagster.testing.connectors import ConnectorContract, Pulled
from muxly_dagster_tests.connectors.posted import Fragile, Posted

NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
JSON, FORM = "application/json; charset=utf-8", "application/x-www-form-urlencoded"


def call(seq: int, body: bytes | str, kind: str = JSON, *, job: str = "on_deal", query: str = "", at: dt.datetime = NOON) -> Call:
    headers = {"content-type": kind, "user-agent": "sender"} if kind else {}
    return Call(seq, f"id-{seq}", job, f"d-{seq}", at, headers, query, body.encode() if isinstance(body, str) else body)


def batches(*calls: Call, flatten: bool = False, cursor: Any = None, job: str = "on_deal") -> list[Batch]:
    connector = Webhook.model_validate({}).equipped(Services(calls=OwnCalls(list(calls))))
    return list(connector.pull(WebhookPull(stream="deals", job=job, flatten=flatten), cursor, None))


def rows(found: Sequence[Batch]) -> list[dict[str, Any]]:
    return [row for batch in found for row in batch.rows.to_pylist()]


def payloads(*calls: Call) -> list[Any]:
    return [None if row["payload"] is None else json.loads(row["payload"]) for row in rows(batches(*calls))]


def test_a_call_is_a_record_with_all_that_came() -> None:
    [batch] = batches(call(7, '{"id": 9007199254740993, "price": 1.10}', query="from=crm"))
    assert batch.cursor == {"seq": 7} and batch.rows.schema == reading.COLUMNS
    assert rows([batch]) == [
        {
            "call_id": "id-7",
            "item": 0,
            "delivery_id": "d-7",
            "received_at": NOON,
            "content_type": "application/json",
            "query": "from=crm",
            "headers": '{"content-type":"application/json; charset=utf-8","user-agent":"sender"}',
            "payload": '{"id": 9007199254740993, "price": 1.10}',
        }
    ]
    assert records.is_json(batch.rows.schema.field("payload"))


def test_a_list_is_a_record_for_each_item() -> None:
    found = rows(batches(call(1, '[{"eventId": 1}, {"eventId": 2}]'), call(2, "[]"), call(3, '{"eventId": 3}')))
    assert [(row["call_id"], row["item"], row["payload"]) for row in found] == [
        ("id-1", 0, '{"eventId": 1}'),
        ("id-1", 1, '{"eventId": 2}'),
        ("id-3", 0, '{"eventId": 3}'),
    ]


def test_bodies_of_other_kinds() -> None:
    assert payloads(
        call(1, "a=1&b=&c=x&c=y%20z", FORM),
        call(2, "payload=%7B%22a%22%3A1.10%7D&token=x", FORM),
        call(3, "payload=no+json", FORM),
        call(4, "hello\nworld", "text/plain"),
        call(5, '{"a": 1}', "text/plain"),
        call(6, "", "text/plain"),
        call(7, '"text"', "application/vnd.it+json"),
        call(8, "no type", ""),
    ) == [
        {"a": "1", "b": "", "c": ["x", "y z"]},
        {"payload": {"a": 1.1}, "token": "x"},
        {"payload": "no json"},
        "hello\nworld",
        {"a": 1},
        None,
        "text",
        "no type",
    ]


def test_what_cannot_be_read_goes_to_quarantine_and_the_rest_goes_on() -> None:
    [batch] = batches(
        call(1, "{broken"), call(2, b"\xff\xfe", "image/png"), call(3, '{"a": 1}'), call(4, '{"a": NaN}'), call(5, b"\xff", FORM)
    )
    assert [bad.reason.partition(":")[0] for bad in batch.unreadable] == ["the call d-1", "the call d-2", "the call d-4", "the call d-5"]
    assert batch.unreadable[0].text == "{broken" and "is not JSON" in batch.unreadable[0].reason
    assert [row["payload"] for row in rows([batch])] == ['{"a": 1}']
    assert batch.cursor == {"seq": 5}


def test_the_payloads_own_fields_as_columns() -> None:
    [batch] = batches(
        call(1, '[{"id": 1, "who": {"name": "Ada"}}, {}, 5]'), call(2, ""), call(3, '{"id": 2, "_item": 99, "more": true}'), flatten=True
    )
    assert batch.rows.column_names[:4] == reading.OWN.names
    assert [(row["_call_id"], row["_item"], row["id"], row["who"], row["more"]) for row in rows([batch])] == [
        ("id-1", 0, 1, '{"name": "Ada"}', None),
        ("id-1", 1, None, None, None),
        ("id-2", 0, None, None, None),
        ("id-3", 0, 2, None, True),
    ]
    assert [row["_received_at"] for row in rows([batch])] == [NOON] * 4
    [bad] = batch.unreadable
    assert (bad.text, bad.reason) == ("5", "the call d-1: it is no object, so it has no fields to flatten")


def test_nothing_but_unreadable_calls_moves_on_too() -> None:
    [batch] = batches(call(1, "[5]"), call(2, "{"), flatten=True)
    assert (len(batch.rows), len(batch.unreadable), batch.cursor) == (0, 2, {"seq": 2})


def test_calls_of_the_job_alone_from_the_cursor_on() -> None:
    calls = [call(1, "1"), call(2, "2", job="other"), call(3, "3"), call(4, "4")]
    assert [row["payload"] for row in rows(batches(*calls, cursor={"seq": 1}))] == ["3", "4"]
    assert [row["payload"] for row in rows(batches(*calls, job="other"))] == ["2"]


def test_a_pull_is_of_the_job_that_it_is_called_like_unless_told_otherwise() -> None:
    connector = Webhook.model_validate({})
    assert connector.stream(WebhookPull(stream="on_deal")).name == "on_deal"
    assert connector.stream(WebhookPull(stream="deals", job="on_deal")).name == "on_deal"
    assert connector.stream(WebhookPull(stream="a", flatten=True)).schema == reading.OWN
    assert connector.stream(WebhookPull(stream="a", flatten=True, contract="freeze")).schema is None


def test_a_pull_of_a_job_that_nobody_can_call_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "muxly.yaml").write_text(
        """
sources: {hooks: {connector: webhook, pulls: {deals: {job: on_deel}, orders: {job: nightly}, right: {job: on_deal}}}}
jobs:
  on_deal: {select: [hooks], webhook: {scheme: github, secret: s3cret}}
  nightly: {select: [hooks], cron: "@daily"}
"""
    )
    warnings = load_assembly(tmp_path, {}).warnings
    assert [(warning.path, warning.line) for warning in warnings] == [("sources.hooks.pulls.deals", 2), ("sources.hooks.pulls.orders", 2)]
    assert "the job on_deel, and no job of this name has a webhook" in warnings[0].what and warnings[0].do == "did you mean on_deal?"


def test_calls_go_when_they_are_old_and_every_pull_has_stored_them(tmp_path: Path) -> None:
    (tmp_path / "muxly.yaml").write_text(
        """
sources: {hooks: {connector: webhook, pulls: {deals: {job: on_deal}, flat: {job: on_deal, flatten: true}}}}
jobs:
  on_deal: {select: [hooks], webhook: {scheme: github, secret: s3cret}}
  silent: {select: [hooks], webhook: {scheme: github, secret: s3cret}}
"""
    )
    later = NOON + dt.timedelta(days=60)
    with Runtime.open(Settings.from_environ({}, tmp_path), {}) as runtime:
        calls, starts = runtime.state.calls, runtime.state.starts
        for number in (1, 2):
            calls.put(call(number, "{}"), Start("s1", "on_deal", "webhook", NOON))
        calls.put(call(3, "{}", job="silent"), Start("s2", "silent", "webhook", NOON))
        runtime.run("hooks.deals")
        runtime.run("hooks.flat")
        assert runtime.forget_calls(later) == {}, "no run has taken them"
        starts.begin("s1", "r1")
        starts.begin("s2", "r2")
        calls.put(call(4, "{}"), Start("s3", "on_deal", "webhook", NOON))
        starts.begin("s3", "r3")
        runtime.run("hooks.deals")
        assert runtime.forget_calls(NOON) == {}, "they are not old"
        assert runtime.forget_calls(later) == {"on_deal": 2, "silent": 1}, "one of two pulls has not seen the newest"
        assert [each.delivery_id for each in calls.after("on_deal", 0, 10)] == ["d-4"]
        runtime.run("hooks.flat")
        assert runtime.forget_calls(later) == {"on_deal": 1}
        assert starts.find("s1") is None
        assert runtime.lake.existing("hooks.deals").count_current() == runtime.lake.existing("hooks.flat").count_current() == 3


# ---- the promises of every connector ---------------------------------------------------------------------------------


class FragileCalls(Fragile, OwnCalls):
    """Calls that fail after so many looks."""

    def after(self, job: str, seq: int, limit: int) -> Sequence[Call]:
        self.look()
        return super().after(job, seq, limit)


class Caller(Posted):
    """A Provider: a service that calls."""

    pull: Mapping[str, Any] = {"stream": "things", "flatten": True, "key": ["number"]}

    def __init__(self) -> None:
        self.calls = FragileCalls()
        super().__init__(self.calls)

    def connector(self, *, wrong: bool = False) -> Connector:
        return Webhook.model_validate({}).equipped(Services(calls=self.calls))

    def put(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            self.calls.kept.append(call(len(self.calls.kept) + 1, self.record(number, text), job="things"))


class TestWebhook(ConnectorContract):
    """By key; nobody signs in."""

    speaks_http = signs_in = hears_deletes = False

    @pytest.fixture
    def provider(self, monkeypatch: pytest.MonkeyPatch) -> Caller:
        monkeypatch.setattr(reading, "_PAGE", 2)
        return Caller()

    def test_the_stream_is_discovered(self, provider: Caller) -> None:
        """Once it was called."""
        provider.put(1)
        super().test_the_stream_is_discovered(provider)


def test_without_a_key_equal_calls_are_records_of_their_own(tmp_path: Path) -> None:
    caller = Caller()
    caller.pull = {"stream": "things", "flatten": True}
    pulled = Pulled(caller, tmp_path)
    caller.put(1, 1, text="same")
    assert pulled.run().changed == 2
    assert pulled.run().changed == 0
    assert pulled.ops() == ["append", "append"]
