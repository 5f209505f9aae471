"""The manifest's language: one model of what a YAML file may say to describe a connector."""

import datetime as dt
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from muxly_dagster.connector import Contract
from muxly_dagster.decoding import declared_field, parse_path
from muxly_dagster.http import Limit
from muxly_dagster.manifest.conditions import parse_condition

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(text: str | int | float) -> dt.timedelta:
    """`90s`, `15m`, `2h`, `3d`, `1w`, `1h30m` or a number of seconds. Raises ValueError for anything else."""
    if isinstance(text, int | float):
        return dt.timedelta(seconds=text)
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip():
        raise ValueError(f"{text!r} is no duration; write 90s, 15m, 2h, 3d or 1w")
    return dt.timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))


def _duration(value: str | int | float) -> str | int | float:
    if not (isinstance(value, str) and value.startswith("${")):
        parse_duration(value)
    return value


def _json_path(text: str) -> str:
    parse_path(text)
    return text


def _condition(text: str) -> str:
    parse_condition(text)
    return text


def _place(text: str) -> str:
    if not re.fullmatch(r"(query|json)\.[^.].*", text):
        raise ValueError(f"{text!r} is no place in a request; write query.NAME or json.NAME")
    return text


Duration = Annotated[str | int | float, AfterValidator(_duration)]
JsonPath = Annotated[str, AfterValidator(_json_path)]
Condition = Annotated[str, AfterValidator(_condition)]
Place = Annotated[str, AfterValidator(_place)]
Size = Annotated[tuple[Place, Annotated[int, Field(gt=0)]], Field(description="Where the page size goes, and the size.")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


# ---- signing in ------------------------------------------------------------------------------------------------------


class NoAuthKind(_Model):
    """The API asks for nothing."""

    kind: Literal["none"] = "none"


class BearerKind(_Model):
    """The API takes a token in the Authorization header."""

    kind: Literal["bearer"]


class ApiKeyKind(_Model):
    """The API takes a key, here."""

    kind: Literal["api_key"]
    into: Literal["header", "query"] = Field("header", description="Where the key goes.")
    name: str = Field("X-API-Key", description="The header's or the parameter's name.")
    prefix: str = Field("", description="Text before the key.")


class BasicKind(_Model):
    """The API takes a user name and password."""

    kind: Literal["basic"]


AuthKind = Annotated[NoAuthKind | BearerKind | ApiKeyKind | BasicKind, Field(discriminator="kind")]


class Input(_Model):
    """One field that a source of this connector may set."""

    type: Literal["string", "integer", "number", "boolean", "duration", "list"] = "string"
    default: Any = None
    required: bool = False
    secret: bool = False
    title: str = ""
    description: str = ""


# ---- requests and answers --------------------------------------------------------------------------------------------


class RequestSpec(_Model):
    """A request; its texts may hold expressions. What names a value that is not there is left out."""

    method: Literal["GET", "POST"] = "GET"
    path: str = Field("", description="Continues base_url, or a whole URL of one of the `hosts`.")
    query: dict[str, Any] = {}
    headers: dict[str, str] = {}
    body: Any = Field(None, alias="json", description="The body, as JSON.")


class ErrorRule(_Model):
    """What an answer means, where its status alone does not say it. The first rule that fits counts."""

    status: int | list[int] | None = None
    when: Condition | None = Field(None, description="`body.PATH == 'text'`, `body.PATH != 1`, or a JSONPath that must select something.")
    do: Literal["retry", "skip", "fail", "sign_in"]
    wait: str | float = Field("backoff", description="Before a retry: backoff, header:NAME or seconds.")

    @field_validator("wait")
    @classmethod
    def _wait(cls, value: str | float) -> str | float:
        if isinstance(value, str) and value != "backoff" and not re.fullmatch(r"header:[\w-]+", value):
            raise ValueError(f"{value!r} is no wait; write backoff, header:NAME or a number of seconds")
        return value


# ---- paging ----------------------------------------------------------------------------------------------------------


class NoPaging(_Model):
    """Everything comes in one answer."""

    kind: Literal["none"] = "none"


class CursorPaging(_Model):
    """Each answer names the next page; no name, or `more` false, ends it."""

    kind: Literal["cursor"]
    next: JsonPath
    into: Place
    size: Size | None = None
    more: JsonPath | None = None


class OffsetPaging(_Model):
    """Each request says how many records to leave out. Without `size` the pages are asked for one by one."""

    kind: Literal["offset"]
    into: Place
    size: Size | None = None
    total: JsonPath | None = Field(None, description="Where the answer says how many records there are.")


class PageNumberPaging(_Model):
    """Each request names a page's number. Without `size` the pages are asked for one by one, up to an empty one."""

    kind: Literal["page"]
    into: Place
    first: int = 1
    size: Size | None = None
    total: JsonPath | None = Field(None, description="Where the answer says how many records there are.")


class LinkPaging(_Model):
    """Each answer holds the next page's address: in its Link header (RFC 8288), or at `next` in the body."""

    kind: Literal["link"]
    next: JsonPath | None = None
    size: Size | None = None


Paging = Annotated[NoPaging | CursorPaging | OffsetPaging | PageNumberPaging | LinkPaging, Field(discriminator="kind")]


# ---- syncing ---------------------------------------------------------------------------------------------------------


class FullSync(_Model):
    """Everything is read every time."""

    kind: Literal["full"] = "full"


class CursorSync(_Model):
    """What came since the last pull is read, by a field that grows."""

    kind: Literal["cursor"]
    field: str = Field(description="The record's field, `object.field` within a flattened object.")
    start: str | int | float | dt.datetime | dt.date | None = Field(None, description="Where the first pull begins.")
    lag: Duration | None = Field(None, description="Leave out the newest records for so long: they may not be complete yet.")
    lookback: Duration | None = Field(None, description="Read so much again each time: records that came late.")
    window: Duration | None = Field(None, description="Ask for slices of this length, one after another.")
    ascending: bool = Field(False, description="The API answers in the order of the field, so that a pull can go on where it broke off.")


Sync = Annotated[FullSync | CursorSync, Field(discriminator="kind")]


class StreamSpec(_Model):
    """One collection of the API."""

    request: RequestSpec
    records: JsonPath = "$"
    records_optional: bool = Field(False, description="The API leaves the list of records out when it is empty.")
    key: list[str] = []
    types: dict[str, str] = {}
    flatten: list[str] = Field([], description="Objects whose fields become columns of their own.")
    paging: Paging = NoPaging()
    sync: Sync = FullSync()
    contract: Contract = "evolve"
    title: str = ""
    description: str = ""

    @field_validator("types")
    @classmethod
    def _types(cls, types: dict[str, str]) -> dict[str, str]:
        for name, type_ in types.items():
            declared_field(name, type_)
        return types


class ApiVersion(_Model):
    """The version of the API that is spoken, and the day it ends."""

    version: str
    sunset: dt.date | None = None


class Manifest(_Model):
    """A connector."""

    muxly: Literal[1] = Field(description="The format's version.")
    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    version: str
    title: str
    description: str = ""
    hosts: list[str] = Field(min_length=1, description="Where requests may go; `*.example.com` is a pattern.")
    base_url: str
    api_version: str | ApiVersion | None = None
    auth: dict[str, AuthKind] = {"none": NoAuthKind()}
    config: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Input] = {}
    check: RequestSpec | None = None
    limits: list[Limit] = []
    max_answer: int = Field(
        256 << 20, gt=0, description="Bytes of one answer, unpacked, above which a pull fails rather than fill the memory."
    )
    errors: list[ErrorRule] = []
    streams: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], StreamSpec] = Field(min_length=1)

    @field_validator("auth", mode="before")
    @classmethod
    def _auth(cls, value: Any) -> Any:
        """`auth: [bearer, none]` is short for a mapping of kinds without settings."""
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list) and all(isinstance(kind, str) for kind in value):
            return {kind: {"kind": kind} for kind in value}
        return value
