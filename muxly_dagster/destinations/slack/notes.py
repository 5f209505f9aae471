"""Messages as Slack takes them: text in mrkdwn, blocks, and the metadata by which a message is known again.

https://docs.slack.dev/messaging/formatting-message-text and https://docs.slack.dev/reference/block-kit/blocks
"""

import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muxly_dagster import records
from muxly_dagster.destination import Delivery
from muxly_dagster.errors import RecordRefused
from muxly_dagster.messages import Escape, Letter, Template, markdown, shorten, template_of

MOST_TEXT = 40_000
MOST_BLOCKS = 50
_MOST_BLOCK_TEXT = 3_000
_MOST_IN = {"header": 150, "fields": 2_000, "button": 75}
_MOST_MARKDOWN = 12_000

EVENT = "muxly_message"
"""The `event_type` of the metadata that Muxly's messages carry."""

_UNFINISHED = re.compile(r"(?:&[a-z]{0,4}|<[^<>]*)(?=\N{HORIZONTAL ELLIPSIS}\Z)")


@dataclass(frozen=True, slots=True)
class Note:
    """One message: where it goes, and the changes that are dealt with once it stands there.

    `channel` is as the project or the record says it; empty for a webhook. `key` is a hash that messages of one thread, or states of
    one message, have in common; people's data does not go into metadata, which every app of a workspace may read.
    """

    letter: Letter
    channel: str
    key: str
    seqs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Posted:
    """What the metadata of a message says: the records it shows, as the first and last of them and how many there are.

    `channel` and `ts` are Slack's name for it; `thread` is the `ts` of the message that it stands under, or its own.
    """

    target: str
    table_id: str
    key: str
    alike: str
    first: int
    last: int
    count: int
    channel: str = ""
    ts: str = ""
    thread: str = ""

    @classmethod
    def of(cls, note: Note, delivery: Delivery) -> "Posted":
        """What the message will say."""
        seqs = note.letter.seqs
        return cls(target_of(delivery), delivery.table_id, note.key, note.letter.alike, seqs[0], seqs[-1], len(seqs))

    @classmethod
    def read(cls, channel: str, message: Mapping[str, Any]) -> "Posted | None":
        """What a message in a channel says; None where it is not one of Muxly's."""
        metadata, ts = message.get("metadata"), str(message.get("ts", ""))
        said = metadata.get("event_payload") if isinstance(metadata, Mapping) and metadata.get("event_type") == EVENT else None
        if not isinstance(said, Mapping):
            return None
        try:
            target, table_id, key, alike = (str(said[name]) for name in ("target", "table_id", "key", "alike"))
            first, last, count = (int(said[name]) for name in ("first", "last", "count"))
        except (KeyError, TypeError, ValueError):
            return None
        return cls(target, table_id, key, alike, first, last, count, channel, ts, str(message.get("thread_ts") or ts))

    def metadata(self, letter: Letter) -> dict[str, Any]:
        """The metadata to send. `id` is for other programs: the record's, the same however often it is sent."""
        names = ("target", "table_id", "key", "alike", "first", "last", "count")
        return {"event_type": EVENT, "event_payload": {"id": letter.id, **{name: getattr(self, name) for name in names}}}


def target_of(delivery: Delivery) -> str:
    """The route and destination; a dead letter that is sent again belongs to the same."""
    return delivery.id.partition("/")[0]


def key_of(letter: Letter, columns: Sequence[str]) -> str:
    """A hash of what the newest record says in these columns (`key`: its own key); empty without columns."""
    if not columns:
        return ""
    newest = letter.records[-1]
    values = [newest["key"] if column == "key" else newest["data"].get(column) for column in columns]
    return hashlib.sha256(records.to_json(values)).hexdigest()[:16]


# ---- what people see ----------------------------------------------------------------------------------------------------


def compose(delivery: Delivery, letter: Letter, text: str, blocks: Any) -> tuple[str, list[Any] | None]:
    """Text and blocks of a message, no longer than Slack takes them. Raises RecordRefused where it cannot be made."""
    said = str(Template(template_of(delivery, letter, "text", text), escape).render(letter))
    # Beside blocks, a rule's own text would be seen by nobody.
    tree = template_of(delivery, letter, "blocks", None if "text" in delivery.templates.get(letter.rule, {}) else blocks)
    if tree is None:
        if not said.strip():
            raise RecordRefused("the message is empty: the template `text` gives nothing for this record")
        return cut(said, MOST_TEXT), None
    made = [_fitted(block) for block in Template(tree, marked=_marked).render(letter)]
    if len(made) > MOST_BLOCKS:
        raise RecordRefused(f"the message has {len(made)} blocks, and Slack takes {MOST_BLOCKS}")
    # What stands in notifications, and what a screen reader reads, must say something.
    return cut(said if said.strip() else "\n".join(_texts(made)), MOST_TEXT), made


def shown(text: str, blocks: list[Any] | None) -> str:
    """A message as people see it: the blocks where there are any, values as they are."""
    return html.unescape(text if blocks is None else "\n".join(_texts(blocks)))


def escape(text: str) -> str:
    """A value in mrkdwn: no mention and no link comes of it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def cut(text: str, most: int) -> str:
    """Shortened with a mark, and not in the middle of `&amp;` or of a link."""
    return _UNFINISHED.sub("", shorten(text, most)) if len(text) > most else text


def _marked(node: Mapping[str, Any]) -> Mapping[str, Escape]:
    """Which texts of Block Kit are markup. Plain text and addresses are not: escaped, they would show the escapes."""
    if node.get("type") == "mrkdwn":
        return {"text": escape}
    return {"text": _in_markdown} if node.get("type") == "markdown" else {}


def _in_markdown(text: str) -> str:
    """A value in a `markdown` block, where Slack's own signs of mentions and links must not stand either, not even escaped."""
    return markdown(text).replace("\\&", "&amp;").replace("\\<", "&lt;").replace("\\>", "&gt;")


def _fitted(value: Any, place: str = "") -> Any:
    if isinstance(value, list):
        return [_fitted(each, place) for each in value]
    if not isinstance(value, Mapping):
        return value
    kind, text = str(value.get("type", "")), value.get("text")
    if isinstance(text, str) and kind in ("plain_text", "mrkdwn", "markdown"):
        most = _MOST_MARKDOWN if kind == "markdown" else _MOST_IN.get(place, _MOST_BLOCK_TEXT)
        # Without `verbatim`, Slack looks for mentions and channels in plain words, such as `@here` in a value.
        literal = {"verbatim": True} if kind == "mrkdwn" else {}
        return literal | {**value, "text": shorten(text, most) if kind == "plain_text" else cut(text, most)}
    return {name: _fitted(each, name if name in _MOST_IN else kind) for name, each in value.items()}


def _texts(value: Any) -> list[str]:
    """What blocks say, from top to bottom, in mrkdwn."""
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    if not isinstance(value, Mapping):
        return []
    own = value.get("text")
    if isinstance(own, str):
        return [own if value.get("type") == "mrkdwn" else escape(own)]
    return [text for name in ("text", "fields", "elements", "accessory") for text in _texts(value.get(name))]
