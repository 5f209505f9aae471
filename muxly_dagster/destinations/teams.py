"""The `teams` destination: Adaptive Cards in Microsoft Teams, by a workflow that posts what its webhook is sent.

https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using and https://adaptivecards.io
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import ConfigDict, Field, model_validator

from muxly_dagster import records
from muxly_dagster.destination import Delivery, Destination, Message, Receipt
from muxly_dagster.errors import ConfigurationError, GoneError, MuxlyError, RecordRefused, RetryLater, SignInError, SourceError
from muxly_dagster.http import Http, Limit, Request, Response, Retries, Timeouts, Verdict
from muxly_dagster.messages import (
    Escape,
    Group,
    Letter,
    PostingAddress,
    Settled,
    Template,
    TemplateText,
    TemplateTree,
    check_address,
    check_templates,
    deleted,
    host_of,
    letters,
    markdown,
    shorten,
    template_of,
)
from muxly_dagster.resource import CheckResult

MOST_BYTES = 28 * 1024
"""Of one message: https://learn.microsoft.com/microsoftteams/limits-specifications-teams"""

AT_ONCE = 100
"""Messages that one delivery sends: what is confirmed after so many is not sent again after a crash."""

_CARD = {"type": "AdaptiveCard", "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "version": "1.5"}
_ADAPTIVE = "application/vnd.microsoft.card.adaptive"
_NOT_ABOUT_THE_RECORD = frozenset({401, 403, 408, 425, 429})
_FAILED = re.compile(r"message delivery failed.*?HTTP error (\d{3})", re.DOTALL)
_SWITCHED_OFF = re.compile(r"\w*(?:NotEnabled|Disabled|Suspended)\b")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_SHORTEST = 200
_SECRET = 8
_EXCERPT = 200


class Teams(Destination):
    """A channel or chat of Microsoft Teams."""

    type: ClassVar[str] = "teams"
    title: ClassVar[str] = "Microsoft Teams"
    batch_rows: ClassVar[int] = 2_000
    templates: ClassVar[tuple[str, ...]] = ("title", "text", "facts", "card")
    example: ClassVar[Mapping[str, Any]] = {"title": "New: {{ key }}"}

    # Whoever has the address can post: pydantic must not quote it.
    model_config = ConfigDict(hide_input_in_errors=True)

    url: PostingAddress = Field(description="The address of the workflow's webhook. Kept like a password, because it is one.")
    heading: TemplateText = Field("", alias="title", description="The card's title: a template.")
    text: TemplateText = Field("", description="The card's text: a template in Markdown.", examples=["{{ name }} is {{ stage }}."])
    facts: dict[str, TemplateText] = Field(
        {},
        description="Names and templates of what stands in a table below; what is empty is left out.",
        examples=[{"Owner": "{{ owner }}"}],
    )
    card: TemplateTree = Field(
        None,
        description="A whole Adaptive Card whose texts are templates, in place of `title`, `text` and `facts`.",
        examples=[{"body": [{"type": "TextBlock", "text": "{{ name }}"}]}],
    )
    group: Group | None = Field(None, description="Many records in one message.", examples=[{"by": ["owner"], "most": 50}])
    deletes: bool = Field(False, description="Whether a deleted record is a message too; the template sees `op`.")
    pace: float = Field(1.0, ge=0, le=60, description="Least seconds between two messages.")
    timeout: float = Field(30.0, gt=0, description="Seconds to wait for an answer.")
    retries: Retries = Field(Retries(attempts=4, cap=15.0), description="How a passing trouble (429, 5xx, no connection) is met.")

    @model_validator(mode="after")
    def _something_to_say(self) -> Self:
        if self.card is not None and not isinstance(self.card, dict):
            raise ValueError("`card` is a card, with its `body`")
        if self.card is None and not (self.heading or self.text or self.facts):
            raise ValueError("say what the message says: `title`, `text`, `facts` or `card`")
        return self

    def deliver(self, delivery: Delivery) -> Receipt:
        """Send one card after the other, up to 100 at a time; answers for those that the workflow took.

        A card that is refused or too large refuses its records; a passing trouble confirms what came before.
        """
        self._check_templates(delivery)
        settled, error, sent = Settled(delivery), None, 0
        silent = frozenset() if self.deletes else deleted(delivery)
        settled.accept(silent)
        found = letters(delivery, self.group, silent)
        first = settled.first_open
        with self._client() as http:
            for at, letter in enumerate(found):
                # The message with the first change is always among them, so that every delivery confirms something.
                if at >= AT_ONCE and first not in letter.seqs:
                    continue
                try:
                    self._send(http, letter.id, self._body(delivery, letter))
                except RecordRefused as refused:
                    settled.refuse(letter.seqs, refused.what)
                    continue
                except MuxlyError as trouble:
                    error = self._explained(trouble)
                    break
                settled.accept(letter.seqs)
                sent += 1
        return settled.receipt({"host": self.public_name(""), "messages": sent}, error)

    def render(self, delivery: Delivery) -> Sequence[Message]:
        """The texts of the cards as people would read them."""
        self._check_templates(delivery)
        found = []
        for letter in letters(delivery, self.group, frozenset() if self.deletes else deleted(delivery)):
            try:
                text = "\n".join(_texts(self._made(delivery, letter)))
            except RecordRefused as refused:
                text = f"(refused: {refused.what})"
            found.append(Message(letter.seqs, _ESCAPED.sub(r"\1", text)))
        return found

    def check(self) -> CheckResult:
        """Reach the host; anything sent to the address itself would start the workflow."""
        return check_address(self.url.get_secret_value(), self.timeout)

    def public_name(self, table: str) -> str:
        """The host; the rest of the address is secret."""
        return host_of(self.url.get_secret_value())

    # ---- cards -------------------------------------------------------------------------------------------------------

    def _check_templates(self, delivery: Delivery) -> None:
        check_templates(delivery, {"title": self.heading, "text": self.text, "facts": self.facts, "card": self.card})

    def _whole(self, delivery: Delivery, letter: Letter) -> Any:
        """The card that is given as a whole, if one is. A rule's own title, text or facts take its place."""
        said = delivery.templates.get(letter.rule, {})
        return template_of(delivery, letter, "card", None if {"title", "text", "facts"} & {*said} else self.card)

    def _made(self, delivery: Delivery, letter: Letter) -> dict[str, Any]:
        """The card of a message. Raises RecordRefused where it cannot be made."""
        card = self._whole(delivery, letter)
        if card is not None:
            return {**_CARD, **Template(card, marked=_marked).render(letter)}
        title, text, facts = (
            Template(template_of(delivery, letter, name, own), markdown).render(letter)
            for name, own in (("title", self.heading), ("text", self.text), ("facts", self.facts))
        )
        known = [{"title": name, "value": value} for name, value in facts.items() if value.strip()]
        body = [
            {"type": "TextBlock", "text": title, "weight": "Bolder", "size": "Medium", "wrap": True} if title.strip() else None,
            {"type": "TextBlock", "text": text, "wrap": True} if text.strip() else None,
            {"type": "FactSet", "facts": known} if known else None,
        ]
        if not any(body):
            raise RecordRefused("the message is empty: its templates give nothing for this record")
        return {**_CARD, "body": [each for each in body if each is not None]}

    def _body(self, delivery: Delivery, letter: Letter) -> bytes:
        """The message as it is sent. The text of a card that is too large is shortened; other cards are refused."""
        card = self._made(delivery, letter)
        body = _message(card)
        own = self._whole(delivery, letter) is None
        block = max((each for each in card["body"] if "text" in each), key=lambda each: len(each["text"]), default=None) if own else None
        while len(body) > MOST_BYTES and block is not None and len(block["text"]) > _SHORTEST:
            size = len(records.to_json(block["text"]))
            share = max(0, size - (len(body) - MOST_BYTES)) / size
            block["text"] = _cut(block["text"], max(_SHORTEST, int(len(block["text"]) * share) - 2))
            body = _message(card)
        if len(body) > MOST_BYTES:
            raise RecordRefused(f"the message has {len(body):,} bytes, and Teams takes {MOST_BYTES:,}")
        return body

    # ---- sending -------------------------------------------------------------------------------------------------------

    def _client(self) -> Http:
        url = self.url.get_secret_value()
        parts = urlsplit(url)
        secrets = [*parts.path.split("/"), *(value for _, value in parse_qsl(parts.query))]
        return Http(
            host_of(url),
            timeouts=Timeouts(connect=min(10.0, self.timeout), read=self.timeout, total=self.timeout),
            limits=[Limit(per_second=1 / self.pace)] if self.pace else [],
            retries=self.retries,
            judge=_judge,
            secrets=[secret for secret in secrets if len(secret) >= _SECRET],
            concurrency=1,
        )

    def _send(self, http: Http, id_: str, body: bytes) -> None:
        headers = {"Content-Type": "application/json; charset=utf-8", "Idempotency-Key": id_}
        response = http.request(Request("POST", self.url.get_secret_value(), headers=headers, content=body))
        failed = _FAILED.search(response.excerpt(1_000))
        if response.status < 300 and failed is None:
            return
        said = response.excerpt(_EXCERPT)
        what = f"{response.reason}: {said}" if said else response.reason
        where = self.public_name("")
        if 300 <= response.status < 400:
            raise ConfigurationError(f"the workflow has moved ({response.reason})", do="set `url` to its new address", where=where)
        if response.status == 410:
            raise GoneError(f"the workflow is gone for good ({what})", do="make it anew, and set `url` to its address", where=where)
        if response.status in (404, 405):
            raise ConfigurationError(f"there is no workflow at this address ({what})", do="correct `url`", where=where)
        if _SWITCHED_OFF.search(said):
            raise ConfigurationError(f"the workflow is switched off ({what})", do="switch it on in Power Automate", where=where)
        raise RecordRefused(what, where=where)

    def _explained(self, error: MuxlyError) -> MuxlyError:
        """What the client says, with what to do about it here."""
        where = self.public_name("")
        if isinstance(error, SignInError):
            do = "copy the address from the workflow's trigger again, and let anyone call it: Teams' own users cannot be signed in as"
            return SignInError(error.what, do=do, where=where)
        if isinstance(error, RetryLater):
            do = "nothing: it goes on by itself; raise `pace`, or use `group`, if the workflow is throttled again and again"
            return RetryLater(error.what, do=do, where=where, after=error.after)
        if isinstance(error, SourceError):
            return ConfigurationError(f"the answer is not a workflow's: {error.what}", do="correct `url`", where=where)
        return error


def _judge(response: Response) -> Verdict | None:
    """Refusals are read here. The older connectors say 200, and in words that Teams did not take the message."""
    if response.status < 300 and (failed := _FAILED.search(response.excerpt(1_000))):
        return "retry" if failed[1] == "429" or failed[1] >= "500" else "skip"
    return "skip" if 300 <= response.status < 500 and response.status not in _NOT_ABOUT_THE_RECORD else None


def _message(card: Mapping[str, Any]) -> bytes:
    return records.to_json({"type": "message", "attachments": [{"contentType": _ADAPTIVE, "contentUrl": None, "content": card}]})


def _cut(text: str, most: int) -> str:
    """Shortened with a mark, which no escape before it swallows."""
    return re.sub(r"\\+(?=\N{HORIZONTAL ELLIPSIS}\Z)", "", shorten(text, most))


def _marked(node: Mapping[str, Any]) -> Mapping[str, Escape]:
    """Which texts of a card are Markdown. Addresses and the titles of buttons are not."""
    if node.get("type") == "TextBlock":
        return {"text": markdown}
    return {"title": markdown, "value": markdown} if {*node} == {"title", "value"} else {}


def _texts(value: Any) -> list[str]:
    """What a card says, from top to bottom."""
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    if not isinstance(value, Mapping):
        return []
    if {*value} == {"title", "value"}:
        return [f"{value['title']}: {value['value']}"]
    own = [value[name] for name in ("text", "title") if isinstance(value.get(name), str)]
    return own + [text for each in value.values() for text in _texts(each)]
