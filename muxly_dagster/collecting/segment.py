"""Segment's HTTP API: single calls (track, identify, page, screen, group, alias) and batches of them, one event a call.

An event is the message as it was sent, with the times that Segment documents: `originalTimestamp` and `sentAt` by the sender's clock,
`receivedAt` by ours, and `timestamp` = receivedAt - (sentAt - originalTimestamp), which a wrong clock at the sender does not move.

Sources: segment.com/docs/connections/sources/catalog/libraries/server/http-api, segment.com/docs/connections/spec/common.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Literal, get_args

import msgspec
import orjson
import xxhash

from muxly_dagster.collecting.events import Gathered, Rejected, Unreadable
from muxly_dagster.collecting.limits import Limits
from muxly_dagster.collecting.tally import ORDINARY, Tally

Type = Literal["track", "identify", "page", "screen", "group", "alias"]
Call = Literal["track", "identify", "page", "screen", "group", "alias", "batch", "import"]

TYPES: tuple[str, ...] = get_args(Type)
"""The kinds of messages; each goes to the stream of its name."""

_OWN = frozenset({"type", "messageId", "timestamp", "originalTimestamp", "sentAt", "receivedAt", "writeKey"})
_TEXT = msgspec.json.Decoder(str)
_Message = Mapping[str, msgspec.Raw]


def read(body: bytes, call: Call, received_at: dt.datetime, limits: Limits = ORDINARY) -> tuple[list[Gathered], list[Rejected]]:
    """The messages of a request by type, in their order, and those that are of none. The id of an event is its `messageId`.

    Raises Unreadable for a body that is no JSON object, or for a batch without a list of messages, TooLarge.
    """
    content = _object(body)
    skewed = call != "import"  # history is imported with the times that it says
    received = _told(received_at)
    gathered: dict[str, tuple[Gathered, list[int]]] = {}
    rejected: list[Rejected] = []
    tally = Tally(limits)
    many = call in ("batch", "import")
    shared: _Message = content if many else {}
    sent_at = _text(shared.get("sentAt"))
    for number, raw in enumerate(_batch(content) if many else [msgspec.Raw(body)]):
        try:
            message = content if not many else msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        except msgspec.DecodeError:
            tally.add()
            rejected.append(Rejected(number, "a message is a JSON object"))
            continue
        kind = _text(message.get("type")) if many else call
        if kind not in TYPES:
            tally.add()
            rejected.append(Rejected(number, f"type is {kind[:40]!r} and none of {', '.join(TYPES)}"))
            continue
        there, indexes = gathered.setdefault(kind, (Gathered(kind), []))
        id_ = _id(message, raw)
        line = _line(message, kind, id_, shared, sent_at, received_at, received, skewed)
        tally.add(line)
        there.lines.append(line)
        there.ids.append(id_)
        indexes.append(number)
    for there, indexes in gathered.values():
        there.indexes = indexes
    return [there for there, _ in gathered.values()], rejected


def write_key(body: bytes) -> str:
    """The write key that stands in a body, as Segment's library for browsers sends it; "" where there is none."""
    try:
        return _text(_object(body).get("writeKey"))
    except Unreadable:
        return ""


def _object(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        body.decode()  # the decoder does not look at what it leaves raw
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except UnicodeDecodeError:
        raise Unreadable("the body is not UTF-8") from None
    except RecursionError:
        raise Unreadable("the body is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise Unreadable(f"the body is no JSON object: {error}") from None


def _batch(content: _Message) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(content.get("batch", b"null"), type=list[msgspec.Raw])
    except msgspec.DecodeError:
        raise Unreadable("a batch has a list of messages as `batch`") from None


def _line(
    message: _Message,
    kind: str,
    id_: str,
    shared: _Message,
    sent_at: str,
    received_at: dt.datetime,
    received: str,
    skewed: bool,
) -> bytes:
    original = _text(message.get("originalTimestamp")) or _text(message.get("timestamp"))
    sent = _text(message.get("sentAt")) or sent_at
    times = {
        "timestamp": _timestamp(original, sent if skewed else "", received_at, received),
        "originalTimestamp": original,
        "sentAt": sent,
        "receivedAt": received,
    }
    own = {name: text for name, text in ({"messageId": id_, "type": kind} | times).items() if text}
    parts = [orjson.dumps(own)[1:-1]]
    for name, value in message.items():
        if name not in _OWN:
            text = bytes(value)
            if name == "context" and "context" in shared:
                text = _merged(bytes(shared["context"]), text)
            parts.append(msgspec.json.encode(name) + b":" + text)
    for name in ("context", "integrations"):
        if name in shared and name not in message:
            parts.append(b'"%b":%b' % (name.encode(), bytes(shared[name])))
    return (b"{" + b",".join(parts) + b"}").replace(b"\n", b" ").replace(b"\r", b" ")  # line breaks stand between tokens only


def _merged(shared: bytes, own: bytes) -> bytes:
    """The context of a batch with that of a message, whose fields win."""
    try:
        both = msgspec.json.decode(shared, type=dict[str, msgspec.Raw]) | msgspec.json.decode(own, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return own
    return b"{" + b",".join(msgspec.json.encode(name) + b":" + bytes(value) for name, value in both.items()) + b"}"


def _timestamp(original: str, sent: str, received_at: dt.datetime, received: str) -> str:
    """When it happened, by our clock where the sender's says when it sent; a time that is none is passed over."""
    happened = _moment(original)
    if happened is None:
        return received
    there = _moment(sent)
    try:
        return _told(happened if there is None else received_at - (there - happened))
    except OverflowError:
        return received


def _moment(text: str) -> dt.datetime | None:
    try:
        found = dt.datetime.fromisoformat(text) if text else None
        return found and (found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found)
    except ValueError:
        return None


def _told(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _id(message: _Message, raw: msgspec.Raw) -> str:
    """The sender's id; without one a hash of the message, which says when it was made or cannot be told from its repetition."""
    given = message.get("messageId")
    if given is not None and (text := _text(given) or bytes(given).decode().strip('"')) not in ("", "null"):
        return text if text.isprintable() else orjson.dumps(text)[1:-1].decode()
    return f"muxly-{xxhash.xxh3_128_hexdigest(bytes(raw))}" if "timestamp" in message or "originalTimestamp" in message else ""


def _text(raw: msgspec.Raw | None) -> str:
    if raw is None or bytes(raw)[:1] != b'"':
        return ""
    return _TEXT.decode(raw)
