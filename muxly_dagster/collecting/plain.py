"""Plain JSON: one object, an array of them, or one a line (NDJSON). Events stay the bytes that came; only their ids are read."""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from muxly_dagster.collecting.events import Gathered, Lines, Rejected, TooLarge, UnknownType, Unreadable

LINES = frozenset(
    f"application/{name}"
    for name in ("x-ndjson", "ndjson", "jsonl", "x-jsonl", "jsonlines", "x-jsonlines", "json-lines", "stream+json", "x-json-stream")
)
"""Names under which NDJSON goes about; none of them is registered."""

_JSON = re.compile(r"(application|text)/([^;\s]+\+)?json")
_ANY = frozenset({"", "*/*", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded", "binary/octet-stream"})
"""What clients say who were not told (curl sends a form); the body itself shows what it is."""

_BOM = b"\xef\xbb\xbf"
_WHITE = b" \t\r\n"
_Raws = msgspec.json.Decoder(list[msgspec.Raw])
_Decoder: TypeAlias = msgspec.json.Decoder[Any]


def read(body: bytes, content_type: str, stream: str, id_field: str = "id", items: int = 50_000) -> Gathered:
    """The events of a request, and what of it is none. `id_field` holds the sender's id of an event; "" where events have none.

    Raises UnknownType for other kinds of content, Unreadable where nothing can be made of the body, TooLarge for more than `items`.
    """
    kind, is_json = _kind(content_type)
    body = body.removeprefix(_BOM).strip(_WHITE)
    if not body:
        raise Unreadable("the body is empty")
    decoder = _decoder(id_field)
    if kind in LINES:
        return _lines(body, stream, decoder, items)
    if body[:1] == b"[":
        return _array(body, stream, id_field, decoder, items)
    try:
        _check_text(body)
        id = _id(decoder.decode(body))
    except ValueError as error:
        if not is_json and b"\n" in body:
            return _lines(body, stream, decoder, items)
        hint = "; send many events as a JSON array, or as application/x-ndjson" if "trailing characters" in str(error) else ""
        return Gathered(stream, rejected=[Rejected(0, _reason(error) + hint)])
    except RecursionError:
        return Gathered(stream, rejected=[Rejected(0, _DEEP)])
    return Gathered(stream, Lines((_line(body),)), [id], (0,))


_DEEP = "is nested too deeply"


@functools.lru_cache(100)
def _kind(content_type: str) -> tuple[str, bool]:
    """What a Content-Type names, and whether that is JSON. Raises UnknownType."""
    kind = content_type.partition(";")[0].strip().lower()
    is_json = _JSON.fullmatch(kind) is not None
    if not is_json and kind not in LINES and kind not in _ANY:
        raise UnknownType(f"Content-Type: {kind[:100]} is not read here; send application/json or application/x-ndjson")
    return kind, is_json


def _array(body: bytes, stream: str, id_field: str, decoder: _Decoder, items: int) -> Gathered:
    found = _alike(body, stream, decoder, items)
    if found is not None:
        return found
    try:
        _check_text(body)
        events = _arrays(id_field)(body)
        if len(events) > items:
            raise _too_many(items)
        raws = _Raws.decode(body)
    except (msgspec.ValidationError, UnicodeDecodeError):
        return _mixed(body, stream, decoder, items)
    except RecursionError:
        raise Unreadable(f"the body {_DEEP}") from None
    except msgspec.DecodeError as error:
        raise Unreadable(str(error)) from None
    lines = [bytes(raw) for raw in raws]
    if b"\n" in body or b"\r" in body:
        lines = [_line(line) for line in lines]
    return Gathered(stream, Lines(lines), _ids(events), range(len(lines)))


def _alike(body: bytes, stream: str, decoder: _Decoder, items: int) -> Gathered | None:
    """An array whose events begin alike, as machines write them: it is made lines, and read once. None for any other.

    A comma with the beginning of an event behind it is found sooner than one alone, and less often within an event.
    """
    if body[:2] != b"[{" or body[-2:] != b"}]" or b"\n" in body or b"\r" in body:
        return None
    begin, comma = body[1:6], b", " if b'": ' in body[:100] else b","  # who puts a space behind colons does so behind commas
    texts = body[1:-1].split(b"}" + comma + begin, items - 1)  # where there are more, the last one is no event
    text = (b"}\n" + begin).join(texts)
    return _by_line(text, len(texts), stream, decoder)


def _by_line(text: bytes, count: int, stream: str, decoder: _Decoder) -> Gathered | None:
    """A text of `count` lines, which begin and end with a brace each, if each of them is one event; None where that is not so.

    Within an event, a break with a brace on both sides is a mistake, whether in a string or where a comma is due. So all breaks stand
    between events, at most one between each two of them; where there is one event more than breaks, there is nothing else between them.
    """
    try:
        _check_text(text)
        events = decoder.decode_lines(text)
        ids = _ids(events)
    except (ValueError, RecursionError):
        return None
    return Gathered(stream, Lines((text,), count), ids, range(count)) if len(events) == count else None


def _mixed(body: bytes, stream: str, decoder: _Decoder, items: int) -> Gathered:
    """An array with something in it that is no event."""
    if body.count(b",") >= items * 100:  # what is cut into so many pieces takes much more memory than the body
        raise TooLarge(f"the body holds more than {items:,} things, and some of them are no events")
    try:
        raws = _Raws.decode(body)
    except RecursionError:
        raise Unreadable(f"the body {_DEEP}") from None
    except msgspec.DecodeError as error:
        raise Unreadable(str(error)) from None
    if len(raws) > items:
        raise _too_many(items)
    return _each(enumerate(bytes(raw) for raw in raws), stream, decoder)


def _lines(body: bytes, stream: str, decoder: _Decoder, items: int) -> Gathered:
    breaks = body.count(b"\n")
    if breaks >= items * 2:
        raise _too_many(items)
    if breaks < items and body[:1] == b"{" and body.count(b"}\n" + body[:5]) == breaks and b"\r" not in body:
        found = _by_line(body, breaks + 1, stream, decoder)
        if found is not None:
            return found
    lines = [(at, stripped) for at, line in enumerate(body.split(b"\n")) if (stripped := line.strip(_WHITE))]
    if len(lines) > items:
        raise _too_many(items)
    try:
        _check_text(body)
        ids = _ids([decoder.decode(line) for _, line in lines])
    except (ValueError, RecursionError):
        return _each(lines, stream, decoder)
    texts = [line for _, line in lines]
    if b"\r" in body:
        texts = [_line(line) for line in texts]
    return Gathered(stream, Lines(texts), ids, [at for at, _ in lines])


def _each(items: Any, stream: str, decoder: _Decoder) -> Gathered:
    """Item by item, with the reason for each that is no event."""
    found, indexes = Gathered(stream), []
    for at, item in items:
        try:
            _check_text(item)
            id = _id(decoder.decode(item))
        except ValueError as error:
            found.rejected.append(Rejected(at, _reason(error)))
        except RecursionError:
            found.rejected.append(Rejected(at, _DEEP))
        else:
            found.lines.append(_line(item))
            found.ids.append(id)
            indexes.append(at)
    found.indexes = indexes
    return found


# ---- ids ------------------------------------------------------------------------------------------------------------


@functools.lru_cache(1000)
def _struct(id_field: str) -> type[msgspec.Struct]:
    fields: list[tuple[str, Any, Any]] = [("id", str | int | None, None)] if id_field else []
    return msgspec.defstruct("Event", fields, rename={"id": id_field} if id_field else None, gc=False)


@functools.lru_cache(1000)
def _decoder(id_field: str) -> _Decoder:
    return msgspec.json.Decoder(_struct(id_field))


@functools.lru_cache(1000)
def _arrays(id_field: str) -> Callable[[Any], Any]:
    return msgspec.json.Decoder(list[_struct(id_field)]).decode  # type: ignore[misc]


def _ids(events: Sequence[Any]) -> list[str]:
    if not events or not events[0].__struct_fields__:
        return [""] * len(events)
    ids = [event.id for event in events]
    return ids if set(map(type, ids)) == {str} else [_text(id) for id in ids]


def _id(event: Any) -> str:
    return _text(event.id) if event.__struct_fields__ else ""


def _text(id: str | int | None) -> str:
    return "" if id is None else str(id)


# ---- text -----------------------------------------------------------------------------------------------------------


def _check_text(content: bytes) -> None:
    """The decoder does not look into text that it leaves as it is."""
    if not content.isascii():
        content.decode()


def _line(content: bytes) -> bytes:
    """On one line: in JSON a line break stands between tokens, never in one."""
    return content.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in content or b"\r" in content else content


def _reason(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8"
    if isinstance(error, msgspec.ValidationError):
        return "its id is neither text nor a whole number" if "`$." in str(error) else "is no JSON object"
    return str(error)


def _too_many(items: int) -> TooLarge:
    return TooLarge(f"the body holds more than {items:,} events")
