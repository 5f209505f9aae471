"""From calls to batches: what a payload is, and a record for each thing in it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

import msgspec
import orjson
import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.connector import Batch, Unreadable
from muxly_dagster.decoding import PageDecoder
from muxly_dagster.intake import Call, Calls

COLUMNS = pa.schema(
    [
        pa.field("call_id", pa.string()),
        pa.field("item", pa.int64()),
        pa.field("delivery_id", pa.string()),
        pa.field("received_at", records.TIMESTAMP),
        pa.field("content_type", pa.string()),
        pa.field("query", pa.string()),
        pa.field("headers", pa.string(), metadata=records.JSON_FIELD),
        pa.field("payload", pa.string(), metadata=records.JSON_FIELD),
    ]
)
"""A record for each item of a payload that is a list, numbered from 0, and one for every other payload."""

OWN = pa.schema([pa.field(f"_{COLUMNS.field(i).name}", COLUMNS.field(i).type) for i in range(4)])
"""What stands before the payload's own fields."""

_PAGE = 1000
_LONGEST = 300.0  # seconds
_TEXT = 64 << 10
_MOST_FIELDS = 10_000

_items_of = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Unreadable(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Item:
    """One thing of a call's payload, as the JSON text it came as; empty where there was no body."""

    call: Call
    number: int
    text: bytes


def read(calls: Calls, job: str, seq: int, known: pa.Schema | None, *, flatten: bool) -> Iterator[Batch]:
    """The calls behind a seq, in order; ends at the newest, or after some minutes, so that what follows from a pull gets its turn."""
    decoder = PageDecoder(known=known, types={"_received_at": "timestamp"})
    until = time.monotonic() + _LONGEST
    while (page := calls.after(job, seq, _PAGE)) and time.monotonic() < until:
        seq = page[-1].seq
        items, unreadable = _taken_apart(page)
        if flatten:
            rows, unread = _flat(decoder, items)
        else:
            rows, unread = _whole(items), []
        yield Batch(rows, {"seq": seq}, (*unreadable, *unread))


def _taken_apart(calls: Sequence[Call]) -> tuple[list[_Item], list[Unreadable]]:
    items: list[_Item] = []
    unreadable: list[Unreadable] = []
    for call in calls:
        try:
            items += [_Item(call, number, text) for number, text in enumerate(_payload(call))]
        except _Unreadable as error:
            unreadable.append(Unreadable(call.body[:_TEXT].decode("utf-8", "replace"), f"the call {call.delivery_id}: {error}"))
    return items, unreadable


def _payload(call: Call) -> list[bytes]:
    """The items of a call's payload as JSON text: numbers in it stay as they are."""
    body, kind = call.body.strip(), content_type(call)
    if not body:
        return [b""]
    if kind == "application/x-www-form-urlencoded":
        return [_form(body)]
    try:
        orjson.loads(body)
    except ValueError as error:
        if kind == "application/json" or kind.endswith("+json"):
            raise _Unreadable(f"its body is not JSON: {error}") from None
        try:
            return [orjson.dumps(call.body.decode())]
        except UnicodeDecodeError:
            raise _Unreadable(f"its body is neither JSON nor text ({kind or 'it names no type'})") from None
    return [bytes(item) for item in _items_of(body)] if body.startswith(b"[") else [body]


def _form(body: bytes) -> bytes:
    """A form's fields as an object; what GitHub and Slack put into a field `payload` is JSON itself."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise _Unreadable(f"its body is not a form: {error}") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    said: dict[str, object] = {name: values[0] if len(values) == 1 else values for name, values in fields.items()}
    if isinstance(said.get("payload"), str):
        try:
            orjson.loads(str(said["payload"]))
            said["payload"] = orjson.Fragment(str(said["payload"]))
        except ValueError:
            pass
    return orjson.dumps(said)


def content_type(call: Call) -> str:
    """The media type of a call's body, without its parameters."""
    return call.headers.get("content-type", "").partition(";")[0].strip().lower()


def _whole(items: Sequence[_Item]) -> pa.Table:
    calls = [item.call for item in items]
    headers = {call.id: records.to_json(dict(call.headers)).decode() for call in calls}
    columns = [
        [call.id for call in calls],
        [item.number for item in items],
        [call.delivery_id for call in calls],
        [call.received_at for call in calls],
        [content_type(call) or None for call in calls],
        [call.query or None for call in calls],
        [headers[call.id] for call in calls],
        [item.text.decode() or None for item in items],
    ]
    return pa.table([pa.array(values, f.type) for values, f in zip(columns, COLUMNS, strict=True)], schema=COLUMNS)


def _flat(decoder: PageDecoder, items: Sequence[_Item]) -> tuple[pa.Table, list[Unreadable]]:
    """A column for each field. Our own stand last in the text, since the last of a name counts, and first in the table."""
    objects = [item for item in items if item.text.startswith(b"{") or not item.text]
    others = [item for item in items if item.text and not item.text.startswith(b"{")]
    unreadable = [
        Unreadable(item.text[:_TEXT].decode(), f"the call {item.call.delivery_id}: it is no object, so it has no fields to flatten")
        for item in others
    ]
    if not objects:
        return OWN.empty_table(), unreadable
    decoder.decode(b"[" + b",".join(map(_with_own, objects)) + b"]")
    rows, unread = decoder.flush(len(objects))
    unreadable += [Unreadable(bad.text, bad.reason) for bad in unread]
    names = [*OWN.names, *(name for name in rows.column_names if name not in OWN.names)]
    return rows.select([name for name in names if name in rows.column_names]), unreadable


def _with_own(item: _Item) -> bytes:
    call = item.call
    own = orjson.dumps(
        {"_call_id": call.id, "_item": item.number, "_delivery_id": call.delivery_id, "_received_at": call.received_at.isoformat()}
    )
    fields = item.text.strip()[1:-1].strip()
    return b"{" + fields + b"," + own[1:] if fields else own
