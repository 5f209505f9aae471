"""What a request of a webhook holds: its body in one of several forms, its headers, its id and its place below the address."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from muxly_dagster import records
from muxly_dagster.errors import RecordRefused
from muxly_dagster.http import Request
from muxly_dagster.messages import Letter, Template, TemplateText

Form = Literal["record", "data", "cloudevents"]
Record = dict[str, Any]

_JSON = "application/json"
_DOTS = re.compile(r"(?:\.|%2e){1,2}", re.IGNORECASE)
"""Path segments that lead upwards or nowhere: to what reads an address, `%2e%2e` is `..` (WHATWG URL, 4.4)."""


class CloudEvents(BaseModel):
    """How records become CloudEvents 1.0 (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["structured", "binary"] = Field(
        "structured", description="structured: the event is the body. binary: attributes are headers, the body is the record's data."
    )
    source: TemplateText = Field("", description="A template of the event's `source`; otherwise `/CONNECTOR/TABLE`.")
    type: TemplateText = Field("", description="A template of the event's `type`; otherwise `muxly.record.upsert` and so on.")


@dataclass(frozen=True, slots=True)
class Packing:
    """How the records of one delivery are put into requests. `series` is what the ids of batches begin with."""

    url: str
    method: str
    series: str
    form: Form
    batch: int
    wrap: str
    events: CloudEvents
    path: str = ""
    delete: bool = False
    keep_type: bool = False
    templates: Mapping[str, Any] = field(default_factory=dict)

    def identity(self, shown: Sequence[Record]) -> str:
        """The id of a request: the record's own; of a batch, the delivery's with the numbers of its first and last record."""
        if self.batch == 1:
            single: str = shown[0]["id"]
            return single
        return f"{self.series}:{shown[0]['metadata']['seq']}-{shown[-1]['metadata']['seq']}"

    def request(self, shown: Sequence[Record], rule: str, tag: Any = None) -> Request:
        """The request that carries these records. Raises RecordRefused when they cannot be put into one."""
        identity = self.identity(shown)
        method = "DELETE" if self.delete and shown[0]["op"] == "delete" else self.method
        headers = {"Idempotency-Key": identity, "webhook-id": identity}
        content: bytes | None = None
        if method != "DELETE":
            content, media_type, more = self._body(shown, rule)
            headers |= more
            if not self.keep_type:
                headers["Content-Type"] = media_type
        url = self.url if not self.path else self._address(shown, rule)
        return Request(method, url, headers=headers, content=content, tag=tag)

    def text(self, shown: Sequence[Record], rule: str) -> str:
        """The body for people; of a request without one, its method and path. Raises RecordRefused as `request` does."""
        if self.delete and shown[0]["op"] == "delete":
            return f"DELETE {self._below(shown, rule)}"
        return self._body(shown, rule)[0].decode("utf-8", "replace")

    def _body(self, shown: Sequence[Record], rule: str) -> tuple[bytes, str, dict[str, str]]:
        """Bytes, media type, and headers that belong to them."""
        template = self.templates.get(rule)
        if template is not None:
            filled = Template(template, typed=True).render(Letter(tuple(shown), rule))
            if isinstance(filled, str):
                return filled.encode("utf-8", "replace"), "text/plain; charset=utf-8", {}
            return records.to_json(filled), _JSON, {}
        if self.form == "cloudevents":
            return self._events(shown, rule)
        parts: list[Any] = [record["data"] for record in shown] if self.form == "data" else list(shown)
        if self.batch == 1:
            return records.to_json(parts[0]), _JSON, {}
        return records.to_json({self.wrap: parts} if self.wrap else parts), _JSON, {}

    def _events(self, shown: Sequence[Record], rule: str) -> tuple[bytes, str, dict[str, str]]:
        events = [self._attributes(record, rule) for record in shown]
        if self.batch > 1:
            whole = [{**event, "data": record["data"]} for event, record in zip(events, shown, strict=True)]
            return records.to_json(whole), "application/cloudevents-batch+json; charset=utf-8", {}
        (event,), (record,) = events, shown
        if self.events.mode == "binary":
            del event["datacontenttype"]  # which is the Content-Type there
            headers = {f"ce-{name}": _header_value(str(value)) for name, value in event.items()}
            return records.to_json(record["data"]), _JSON, headers
        return records.to_json({**event, "data": record["data"]}), "application/cloudevents+json; charset=utf-8", {}

    def _attributes(self, record: Record, rule: str) -> dict[str, Any]:
        """An event's attributes, and the extensions `partitionkey` and `sequence`."""
        metadata = record["metadata"]
        source, kind = f"/{quote(record['connector_id'] or 'muxly')}/{quote(record['stream'])}", f"muxly.record.{record['op']}"
        if self.events.source or self.events.type:
            letter = Letter((record,), rule)
            source = str(Template(self.events.source).render(letter)).strip() if self.events.source else source
            kind = str(Template(self.events.type).render(letter)).strip() if self.events.type else kind
            if not source or not kind:
                raise RecordRefused("the event's `source` or `type` is empty for this record")
        attributes = {
            "specversion": "1.0",
            "id": record["id"],
            "source": source,
            "type": kind,
            "time": record["timestamp"],
            "datacontenttype": _JSON,
            "dataschema": f"urn:muxly:schema:{quote(record['stream'])}:{metadata['schema_hash']}",
            "sequence": f"{metadata['seq']:020d}",
        }
        if record["key"]:
            attributes |= {"subject": record["key"], "partitionkey": record["key"]}
        return attributes

    def _address(self, shown: Sequence[Record], rule: str) -> str:
        """The address with the record's path below it."""
        path, _, query = self._below(shown, rule).partition("?")
        parts = urlsplit(self.url)
        merged = "&".join(each for each in (parts.query, query) if each)
        return parts._replace(path=f"{parts.path.rstrip('/')}/{path.lstrip('/')}", query=merged).geturl()

    def _below(self, shown: Sequence[Record], rule: str) -> str:
        """`path` filled in. Whatever the record says stays one value of the path or of the query."""
        filled = str(Template(self.path, _one_value).render(Letter(tuple(shown), rule)))
        path = filled.partition("?")[0]
        if any(_DOTS.fullmatch(segment) for segment in path.split("/")):
            raise RecordRefused("`path` would lead to another place with this record's values (. or ..)")
        if "//" in path or (path.endswith("/") and not self.path.partition("?")[0].endswith("/")):
            raise RecordRefused("`path` has an empty value for this record")
        return filled


def _one_value(text: str) -> str:
    return quote(text, safe="")


def _header_value(text: str) -> str:
    """A value as CloudEvents puts it into a header (HTTP Protocol Binding 1.0.2, 3.1.3.2)."""
    return quote(text, safe="!#$&'()*+,/:;<=>?@[\\]^_`{|}~-.")
