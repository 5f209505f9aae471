"""The manifest as a whole: the connector, its streams, actions and webhooks."""

import datetime as dt
import re
from typing import Any, Literal

from pydantic import Field, field_validator

from muxly_dagster.connector import Contract
from muxly_dagster.decoding import declared_field
from muxly_dagster.http import Limit
from muxly_dagster.manifest.schema.auth import AuthKind, NoAuthKind
from muxly_dagster.manifest.schema.base import Condition, JsonPath, Model, Name, Place
from muxly_dagster.manifest.schema.paging import NoPaging, Paging
from muxly_dagster.manifest.schema.requests import (
    ActionSpec,
    CheckSpec,
    ErrorRule,
    FileSpec,
    Input,
    JsonResponse,
    RequestSpec,
    ResponseSpec,
)
from muxly_dagster.manifest.schema.syncing import Deletes, FullSync, Sync

_EACH = re.compile(r"(config|streams)\.[a-z][a-z0-9_]* as [a-z][a-z0-9_]*")


class ForEach(Model):
    """The stream is read once for each of these, and all of it is one table. `config.regions as region` is short for it.

    Requests may then name `${region}`, or the fields of a parent stream's record: `${folder.id}`.
    """

    in_: str | list[str | int] = Field(alias="in", description="A list, `config.NAME`, or `streams.NAME`: the records of that stream.")
    as_: Name = Field(alias="as", description="What requests call it.")
    add: dict[str, str] = Field({}, description="Columns that every record gets, such as {folder_id: ${folder.id}}.")
    key: list[str] = Field(["id"], min_length=1, description="With `streams.NAME`: the fields that tell its records apart.")


class EnrichBatch(Model):
    """Many records in one request."""

    size: int = Field(gt=0, description="Records in one request.")
    into: Place | None = Field(None, description="Where the keys go, as a list; or the request names ${keys}, such as ${keys|text}: a,b,c.")
    each: Any = Field("${key}", description="What stands there for each of them.")
    records: JsonPath = Field("$", description="The records of the answer.")
    by: JsonPath = Field("$.id", description="Where they name the key.")


class EnrichSpec(Model):
    """More of each record, from requests of its own that name `${key}` (or `${record.NAME}`)."""

    request: RequestSpec
    key: str = Field(description="The record's field that says what to ask for.")
    into: str = Field("$", description="The field that takes the answer; `$`: the answer's fields go over the record's own.")
    select: JsonPath = Field("$", description="What of the answer is taken.")
    batch: EnrichBatch | None = None
    when: Condition | None = Field(None, description="Only records for which this holds.")


class DiscoveredSchema(Model):
    """The provider says which fields records have. Requests may then name `${schema.names}`."""

    request: RequestSpec
    records: JsonPath = "$"
    name: JsonPath = "$.name"
    type: JsonPath | None = None
    map: dict[str, str] = Field({}, description="The provider's names of types to ours, beyond the usual ones.")
    paging: Paging = NoPaging()

    @field_validator("map")
    @classmethod
    def _map(cls, types: dict[str, str]) -> dict[str, str]:
        for name, type_ in types.items():
            declared_field(name, type_)
        return types


class SignatureSpec(Model):
    """How the provider signs what it sends to a webhook."""

    scheme: Literal["standard_webhooks", "github", "stripe", "slack", "hubspot", "shopify", "hmac"]
    header: str = ""
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""
    signed: str = Field("{body}", description="What is signed: a text of {body}, {timestamp}, {method} and {url}.")
    timestamp_header: str = ""
    tolerance: float = Field(300, gt=0, description="Seconds that the timestamp may be off.")


class WebhookSpec(Model):
    """Events that the provider sends by itself."""

    title: str = ""
    signature: SignatureSpec | None = None
    id: JsonPath | None = Field(None, description="Where an event names itself, so that one that comes twice counts once.")
    type: JsonPath | None = Field(None, description="Where it says what happened.")
    records: JsonPath = Field("$", description="The events of a delivery.")
    streams: dict[str, list[str]] = Field({}, description="The streams that a type of event says have changed; `*` is any.")


class StreamSpec(Model):
    """One collection of the API."""

    for_each: ForEach | None = None
    request: RequestSpec
    response: ResponseSpec = JsonResponse()
    records: JsonPath = "$"
    records_optional: bool = Field(False, description="The API leaves the list of records out when it is empty.")
    key: list[str] = Field([])
    types: dict[str, str] = Field({})
    flatten: list[str] = Field([], description="Objects whose fields become columns of their own.")
    paging: Paging = NoPaging()
    sync: Sync = FullSync()
    deletes: Deletes | None = None
    enrich: list[EnrichSpec] = Field([])
    file: FileSpec | None = None
    discover: DiscoveredSchema | None = Field(None, alias="schema")
    contract: Contract = "evolve"
    title: str = ""
    description: str = ""

    @field_validator("for_each", mode="before")
    @classmethod
    def _for_each(cls, value: Any) -> Any:
        if isinstance(value, str):
            if not _EACH.fullmatch(value):
                raise ValueError(f"{value!r} is no for_each; write `config.NAME as X`, `streams.NAME as X` or {{in: [...], as: WORD}}")
            in_, _, as_ = value.partition(" as ")
            return {"in": in_, "as": as_}
        return value

    @field_validator("types")
    @classmethod
    def _types(cls, types: dict[str, str]) -> dict[str, str]:
        for name, type_ in types.items():
            declared_field(name, type_)
        return types


class ApiVersion(Model):
    """The version of the API that is spoken, and the day it ends."""

    version: str
    sunset: dt.date | None = None


class Manifest(Model):
    """A connector."""

    muxly: Literal[1] = Field(description="The format's version.")
    id: Name
    version: str
    author: str = ""
    title: str
    description: str = ""
    hosts: list[str] = Field(min_length=1, description="Where requests may go; `*.example.com` is a pattern.")
    base_url: str
    api_version: str | ApiVersion | None = None
    auth: dict[str, AuthKind] = Field({"none": NoAuthKind()})
    config: dict[Name, Input] = Field({})
    docs: str = Field("", description="The page of the API's own documentation.")
    check: CheckSpec | None = None
    limits: list[Limit] = Field([])
    max_answer: int = Field(
        256 << 20, gt=0, description="Bytes of one answer, unpacked, above which a pull fails rather than fill the memory."
    )
    errors: list[ErrorRule] = Field([])
    streams: dict[Name, StreamSpec] = Field(min_length=1)
    actions: dict[Name, ActionSpec] = Field({})
    webhooks: dict[Name, WebhookSpec] = Field({})
    example: dict[str, Any] = Field({}, description="What a template shows beyond the required fields; `pulls` to begin with.")

    @field_validator("auth", mode="before")
    @classmethod
    def _auth(cls, value: Any) -> Any:
        """`auth: [bearer, none]` is short for a mapping of kinds without settings."""
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list) and all(isinstance(kind, str) for kind in value):
            return {kind: {"kind": kind} for kind in value}
        return value
