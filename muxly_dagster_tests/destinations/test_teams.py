"""Cards reach a workflow, in Markdown that shows what records say, and every record is answered for."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from muxly_dagster.destinations.teams import MOST_BYTES, Teams
from muxly_dagster.errors import ConfigurationError, GoneError, RetryLater, SignInError
from muxly_dagster.http import Retries
from muxly_dagster.testing import EVERY_TYPE, DestinationContract, delivery
from muxly_dagster_tests.http.server import answer
from muxly_dagster_tests.peers.teams import PATH, SIGNATURE, Workflow

IMPATIENT = Retries(attempts=2, base=0.001, cap=0.001)


@pytest.fixture
def workflow() -> Iterator[Workflow]:
    with Workflow() as workflow:
        yield workflow


def teams(workflow: Workflow, **fields: Any) -> Teams:
    """A destination from fields as they stand in muxly.yaml."""
    given = {} if "card" in fields else {"text": "{{ name }}"}
    return Teams.model_validate({"url": workflow.url, "pace": 0, "retries": IMPATIENT, **given, **fields})


def says(card: dict[str, Any]) -> str:
    """The text of a card's first block, without the escapes of Markdown."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", card["body"][0]["text"])


class TestTeams(DestinationContract):
    """The workflow can tell repetitions by the key of the request; the one that Teams makes posts them again."""

    keeps = "changes"
    columns = tuple(name for name in EVERY_TYPE if name not in ("a_decimal", "some_bytes", "a_date", "a_time"))
    secrets = (SIGNATURE, PATH.split("/")[5])
    longest_text = 25_000  # of a message's 28 KB

    @pytest.fixture
    def destination(self, workflow: Workflow) -> Teams:
        self.workflow = workflow
        return teams(workflow, text="{{ record.data }}")

    def stored(self, destination: Teams) -> list[dict[str, Any]]:
        return [json.loads(says(card)) for card in self.workflow.posted.values()]

    def away(self) -> Teams:
        return Teams(url=f"http://127.0.0.1:1{PATH}?sig={SIGNATURE}", text="{{ id }}", retries=IMPATIENT)

    def interrupted(self) -> Teams:
        self.workflow.after = [answer(202), answer(202), *[b"HTTP/1.1 202 X\r\nContent-Length: 9\r\n\r\nhal"] * 2]
        return teams(self.workflow, text="{{ record.data }}")


def test_the_usual_card_has_a_title_a_text_and_facts(workflow: Workflow) -> None:
    fields: dict[str, Any] = {"title": "{{ name }}", "text": "*{{ stage }}*", "facts": {"Owner": "{{ owner }}", "Region": "{{ region }}"}}
    receipt = teams(workflow, **fields).deliver(delivery([{"id": 7, "name": "R&D", "stage": "won", "owner": "Ada", "region": " "}]))
    (card,) = workflow.arrived
    assert [block["type"] for block in card["body"]] == ["TextBlock", "TextBlock", "FactSet"]
    assert [block.get("text") for block in card["body"]] == ["R\\&D", "*won*", None]
    assert card["body"][2]["facts"] == [{"title": "Owner", "value": "Ada"}]
    assert receipt.detail == {"host": workflow.url[: workflow.url.index("/powerautomate")], "messages": 1}
    assert list(workflow.posted) == ["crm.deals:0b8e1f9c:1"]


def test_a_whole_card_is_filled_in_and_its_addresses_stay_as_they_are(workflow: Workflow) -> None:
    card = {
        "body": [{"type": "TextBlock", "text": "{{ name }}"}, {"type": "FactSet", "facts": [{"title": "a_b", "value": "{{ name }}"}]}],
        "actions": [{"type": "Action.OpenUrl", "title": "{{ name }}", "url": "https://crm.example/?q={{ name | urlencode }}&b=2"}],
    }
    teams(workflow, card=card).deliver(delivery([{"id": 1, "name": "_x_ [y](http://z)"}]))
    (arrived,) = workflow.arrived
    assert arrived["body"][0]["text"] == "\\_x\\_ \\[y\\](http://z)"
    assert arrived["body"][1]["facts"] == [{"title": "a_b", "value": "\\_x\\_ \\[y\\](http://z)"}]
    assert arrived["actions"][0] == {
        "type": "Action.OpenUrl",
        "title": "_x_ [y](http://z)",
        "url": "https://crm.example/?q=_x_%20%5By%5D%28http%3A//z%29&b=2",
    }
    assert (arrived["$schema"], arrived["version"]) == ("http://adaptivecards.io/schemas/adaptive-card.json", "1.5")


@pytest.mark.parametrize("name", ["x" * 100_000, "*" * 100_000, "\u00fc" * 100_000, "\x01" * 100_000])
def test_a_text_that_is_too_long_is_shortened_with_a_mark(workflow: Workflow, name: str) -> None:
    assert teams(workflow).deliver(delivery([{"id": 1, "name": name}])).accepted == 1
    (card,) = workflow.arrived
    assert re.search(r"[^\\]…$", card["body"][0]["text"])
    assert MOST_BYTES * 0.9 < len(workflow.asked[0].body) <= MOST_BYTES


def test_a_card_that_is_too_large_or_says_nothing_is_a_refused_record(workflow: Workflow) -> None:
    card = {"body": [{"type": "TextBlock", "text": "{{ name }}"}]}
    receipt = teams(workflow, card=card).deliver(delivery([{"id": 1, "name": "x" * 30_000}, {"id": 2, "name": "ok"}]))
    assert (receipt.accepted, [r.seq for r in receipt.refused]) == (1, [1])
    assert "and Teams takes 28,672" in receipt.refused[0].reason
    facts = teams(workflow, text="", facts={"a": "{{ name }}"}).deliver(delivery([{"id": 1, "name": " "}]))
    assert "the message is empty" in facts.refused[0].reason


def test_a_column_that_is_not_there_is_named_before_anything_is_sent(workflow: Workflow) -> None:
    for fields in ({"title": "{{ nmae }}"}, {"facts": {"a": "{{ nmae }}"}}, {"card": {"body": [{"text": "{{ nmae }}"}]}}):
        with pytest.raises(ConfigurationError, match="did you mean name"):
            teams(workflow, **fields).deliver(delivery([{"id": 1, "name": "Ada"}]))
    assert workflow.asked == []


def test_rules_have_templates_of_their_own_and_all_is_shown_as_people_read_it(workflow: Workflow) -> None:
    stretch = delivery([{"id": 1, "name": "a_b"}, {"id": 2, "name": "c"}])
    stretch = replace(stretch, rules=("big", "small"), templates={"big": {"title": "BIG", "facts": {"Name": "{{ name }}"}}})
    assert [message.text for message in teams(workflow).render(stretch)] == ["BIG\na_b\nName: a_b", "c"]
    teams(workflow).deliver(stretch)
    assert [says(card) for card in workflow.arrived] == ["BIG", "c"]
    card = {"body": [{"type": "TextBlock", "text": "card {{ name }}"}]}
    assert [message.text for message in teams(workflow, card=card).render(stretch)] == ["BIG\nName: a_b", "card c"]
    whole = replace(stretch, templates={"small": {"card": card}})
    assert [message.text for message in teams(workflow).render(whole)] == ["a_b", "card c"]


def test_groups_and_deletes(workflow: Workflow) -> None:
    rows = [{"id": n, "owner": "ab"[n % 2], "name": f"n{n}"} for n in range(4)]
    stretch = delivery(rows, ops=["upsert", "upsert", "delete", "upsert"])
    receipt = teams(workflow, text="{{ owner }} {{ count }}", group={"by": ["owner"]}).deliver(stretch)
    assert receipt.accepted == 4
    assert [says(card) for card in workflow.arrived] == ["a 1", "b 2"]
    teams(workflow, text="{{ op }}", deletes=True).deliver(delivery(rows[:1], ops=["delete"], after=4))
    assert says(workflow.arrived[-1]) == "delete"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_trouble_confirms_what_came_before(workflow: Workflow, status: int) -> None:

    workflow.after = [answer(202), *[answer(status, Retry_After="3600" if status == 429 else "0")] * 2]
    receipt = teams(workflow).deliver(delivery([{"id": n, "name": f"n{n}"} for n in range(3)]))
    assert (receipt.accepted, receipt.upto) == (1, 1)
    assert isinstance(receipt.retry, RetryLater)
    assert receipt.retry.after == (3600 if status == 429 else 0)


def test_a_trouble_that_passes_is_waited_out(workflow: Workflow) -> None:
    workflow.answers = [answer(429, Retry_After="0")]
    assert teams(workflow).deliver(delivery([{"id": 1, "name": "a"}])).accepted == 1


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (401, "DirectApiAuthorizationRequired", SignInError),
        (404, "WorkflowNotFound", ConfigurationError),
        (400, "WorkflowTriggerIsNotEnabled", ConfigurationError),
        (302, "Moved", ConfigurationError),
        (410, "Gone", GoneError),
    ],
)
def test_the_answer_says_who_must_act(workflow: Workflow, status: int, code: str, error: type[Exception]) -> None:
    workflow.refuse(status, code)
    with pytest.raises(error) as caught:
        teams(workflow).deliver(delivery([{"id": 1, "name": "a"}]))
    assert SIGNATURE not in str(caught.value)
    assert any(word in str(caught.value) for word in ("`url`", "switch it on", "copy the address"))


def test_a_refused_card_refuses_its_record_and_the_rest_goes_on(workflow: Workflow) -> None:
    workflow.refuse(400, "InvalidCard")
    receipt = teams(workflow).deliver(delivery([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]))
    assert (receipt.accepted, [r.seq for r in receipt.refused]) == (1, [1])
    assert "InvalidCard" in receipt.refused[0].reason


def test_an_older_connectors_200_is_no_success_where_it_says_so(workflow: Workflow) -> None:
    said = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error {} with ContextId x"
    workflow.answers = [answer(200, said.format(429)), answer(200, said.format(413))]
    receipt = teams(workflow).deliver(delivery([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]))
    assert (receipt.accepted, [r.seq for r in receipt.refused]) == (1, [1])
    workflow.answers = [answer(200, said.format(429))] * 2
    with pytest.raises(RetryLater):
        teams(workflow).deliver(delivery([{"id": 3, "name": "c"}], after=2))


@pytest.mark.parametrize("garbage", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"HTTP/1.1 202 X\r\nContent-Length: 99\r\n\r\nhal"])
def test_garbage_for_an_answer_confirms_nothing(workflow: Workflow, garbage: bytes) -> None:
    workflow.answers = [garbage] * 2
    with pytest.raises((RetryLater, ConfigurationError)):
        teams(workflow).deliver(delivery([{"id": 1, "name": "a"}]))


def test_a_long_delivery_is_answered_for_in_parts(workflow: Workflow) -> None:
    rows = [{"id": n, "name": f"n{n}"} for n in range(105)]
    receipt = teams(workflow).deliver(delivery(rows))
    assert (receipt.accepted, receipt.upto, receipt.retry) == (100, 100, None)


def test_checking_sends_nothing_to_the_workflow_and_says_what_it_cannot_know(workflow: Workflow) -> None:
    check = teams(workflow).check()
    assert (check.status, "only seen by posting" in check.what) == ("ok", True)
    assert [(asked.method, asked.target) for asked in workflow.asked] == [("OPTIONS", "/")]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "say what the message says"),
        ({"card": ["x"]}, "with its `body`"),
        ({"text": "{% if %}"}, "is no template"),
        ({"text": "x", "url": "hunter2"}, "must start with https"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        Teams.model_validate({"url": "https://example.com/hunter2", **fields})
    assert "hunter2" not in str(caught.value)


def test_a_message_that_is_sent_again_has_the_key_that_it_had(workflow: Workflow) -> None:
    stretch = delivery([{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}])
    teams(workflow).deliver(stretch)
    teams(workflow).deliver(stretch)  # as another process does after a crash
    assert (len(workflow.arrived), len(workflow.posted)) == (4, 2)
