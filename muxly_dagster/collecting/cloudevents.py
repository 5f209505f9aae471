"""CloudEvents 1.0 over HTTP: one event in headers and body (binary), as JSON (structured), or many as a JSON array (batch).

The fields of an event's data become the record's own, and its attributes stand beside them with `ce_` before their names:
`{"ce_id": "1", "ce_source": "/shop", "ce_type": "order.paid", "total": 9.5}`. Data that is no JSON object is the field `data`, and
`data_base64` where it is neither JSON nor text.

Sources: the CloudEvents specification, its JSON event format and its HTTP binding, all version 1.0.2 (github.com/cloudevents/spec).
"""

import base64
import binascii
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec
import orjson
import xxhash

from muxly_dagster.collecting.events import Gathered, Rejected, UnknownType, Unreadable
from muxly_dagster.collecting.limits import Limits
from muxly_dagster.collecting.tally import ORDINARY, Tally

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"

_NAME = re.compile(r"[a-z0-9]{1,100}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_JSON = re.compile(r"[^/]+/(?:[^;]+\+)?json", re.IGNORECASE)
_LONGEST = 200  # characters of an id
_QUOTED = re.compile(r"\\(.)")
_PLAIN = msgspec.json.Decoder(str | bool | int)

Attributes = dict[str, str | bool | int]
T = TypeVar("T")


class _Refused(ValueError):
    """An event that is none; its text says why."""


def speaks(content_type: str, headers: Mapping[str, str]) -> bool:
    """Whether a request holds CloudEvents. `headers` have lower-case names, or find them however they are written."""
    return content_type.strip().lower().startswith("application/cloudevents") or "ce-specversion" in headers


def read(body: bytes, content_type: str, headers: Mapping[str, str], stream: str, limits: Limits = ORDINARY) -> Gathered:
    """The events of a request. The id of each is made of its source and id, which tell it from all others.

    Raises Unreadable for a body that is not JSON though it should be, and UnknownType for a format other than JSON, TooLarge for too many.
    """
    gathered = Gathered(stream)
    media_type = content_type.partition(";")[0].strip().lower()
    indexes: list[int] = []
    tally = Tally(limits)
    for number, item in enumerate(_items(body, media_type)):
        tally.add(item or body)
        try:
            if item is None:
                attributes, data = _binary(body, content_type.strip(), headers)
            else:
                attributes, data = _structured(item)
            gathered.lines.append(_line(attributes, data))
        except _Refused as refused:
            gathered.rejected.append(Rejected(number, str(refused)))
            continue
        gathered.ids.append(_identity(str(attributes["source"]), str(attributes["id"])))
        indexes.append(number)
    gathered.indexes = indexes
    return gathered


def _items(body: bytes, media_type: str) -> Iterable[bytes | None]:
    """The JSON of each event; None for one whose attributes are headers."""
    if media_type not in (STRUCTURED, BATCH):
        if media_type.startswith("application/cloudevents"):
            raise UnknownType(f"CloudEvents are read as JSON ({STRUCTURED} or {BATCH}), not as {media_type[:80]}")
        return [None]
    text = _utf8(body)
    if media_type == STRUCTURED:
        return [bytes(_raw(text, msgspec.Raw))]
    return [bytes(item) for item in _raw(text, list[msgspec.Raw])]


def _utf8(body: bytes) -> bytes:
    """The same bytes. Raises Unreadable where they are not UTF-8, which the JSON decoder does not look at in what it skips."""
    try:
        body.decode()
    except UnicodeDecodeError:
        raise Unreadable("the body is not UTF-8") from None
    return body


def _raw(text: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except RecursionError:
        raise Unreadable("the body is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise Unreadable(f"the body is not the JSON that it should be: {error}") from None


# ---- one event -------------------------------------------------------------------------------------------------------


def _structured(item: bytes) -> tuple[Attributes, bytes]:
    """Attributes and data (the fields that are to stand in the record, as JSON without its outer braces) of an event in JSON."""
    try:
        members = msgspec.json.decode(item, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        raise _Refused("an event is a JSON object") from None
    data, encoded = members.pop("data", None), members.pop("data_base64", None)
    attributes: Attributes = {}
    for name, value in members.items():
        if bytes(value) != b"null":
            try:
                attributes[name] = _PLAIN.decode(value)
            except msgspec.DecodeError:
                raise _Refused(f"the attribute {name[:40]!r} is no text, whole number, true or false") from None
    _check(attributes)
    if encoded is not None and bytes(encoded) != b"null":
        if data is not None:
            raise _Refused("an event has data or data_base64, not both")
        return attributes, _encoded(bytes(encoded), str(attributes.get("datacontenttype", "")))
    return attributes, _fields(bytes(data)) if data is not None else b""


def _encoded(text: bytes, content_type: str) -> bytes:
    try:
        content = base64.b64decode(msgspec.json.decode(text, type=str), validate=True)
    except (binascii.Error, msgspec.DecodeError, ValueError):
        raise _Refused("data_base64 is no base64") from None
    return _of_bytes(content, content_type) if _JSON.match(content_type) else b'"data_base64":' + text


def _binary(body: bytes, content_type: str, headers: Mapping[str, str]) -> tuple[Attributes, bytes]:
    """The same of an event whose attributes are headers (HTTP binding, 3.1)."""
    attributes: Attributes = {name[3:].lower(): _header(value) for name, value in headers.items() if name.lower().startswith("ce-")}
    if content_type:
        attributes["datacontenttype"] = content_type
    _check(attributes)
    return attributes, _of_bytes(body, content_type) if body else b""


def _header(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = _QUOTED.sub(r"\1", value[1:-1])
    try:
        return urllib.parse.unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise _Refused("a header is not UTF-8 once it is percent-decoded") from None


def _of_bytes(content: bytes, content_type: str) -> bytes:
    if _JSON.match(content_type):
        try:
            return _fields(bytes(_raw(_utf8(content), msgspec.Raw)))
        except Unreadable as error:
            raise _Refused(f"its data is said to be {content_type[:40]}, but {error}") from None
    if content_type.lower().startswith("text/"):
        try:
            return b'"data":' + orjson.dumps(content.decode())
        except UnicodeDecodeError:
            pass
    return b'"data_base64":"' + base64.b64encode(content) + b'"'


def _check(attributes: Attributes) -> None:
    if attributes.get("specversion", "1.0") != "1.0":
        raise _Refused(f"specversion is {str(attributes['specversion'])[:20]!r}: Muxly reads 1.0")
    for name in ("specversion", "id", "source", "type"):
        value = attributes.get(name)
        if not isinstance(value, str) or not value:
            raise _Refused(f"{name} is missing")
    for name in attributes:
        if not _NAME.fullmatch(name):
            raise _Refused(f"{name[:40]!r} is no name of an attribute: they are made of lower-case letters and digits")
    time = attributes.get("time")
    if time is not None and not (isinstance(time, str) and _TIME.fullmatch(time)):
        raise _Refused(f"time is {str(time)[:40]!r} and not as in RFC 3339")


def _fields(data: bytes) -> bytes:
    """Data as the fields of a record: those of an object, else itself as the field `data`. Line breaks stand between JSON's tokens only."""
    data = data.strip().replace(b"\n", b" ").replace(b"\r", b" ")
    if data == b"null":
        return b""
    return data[1:-1].strip() if data[:1] == b"{" else b'"data":' + data


def _line(attributes: Attributes, data: bytes) -> bytes:
    own = {f"ce_{name}": value for name, value in attributes.items() if name != "specversion"}
    if b'"ce_' in data or b"\\" in data:  # a name may be written with escapes
        taken = own.keys() & msgspec.json.decode(b"{" + data + b"}", type=dict[str, msgspec.Raw]).keys()
        if taken:
            raise _Refused(f"its data has a field {min(taken)}, where the attribute of that name goes")
    try:
        head = orjson.dumps(own)
    except TypeError:
        raise _Refused("a whole number has more than 64 bits") from None
    return head[:-1] + b"," + data + b"}" if data else head


def _identity(source: str, id_: str) -> str:
    """Both in one; where they are long, a hash of them."""
    text = f"{_printable(source).replace(' ', '%20')} {_printable(id_)}"
    return text if len(text) <= _LONGEST else xxhash.xxh3_128_hexdigest(text.encode())


def _printable(text: str) -> str:
    return text if text.isprintable() else orjson.dumps(text)[1:-1].decode()
