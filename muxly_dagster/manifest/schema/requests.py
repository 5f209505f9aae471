"""What is asked, and what an answer is: requests, kinds of answers, files, error rules."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from muxly_dagster.manifest.schema.base import Condition, JsonPath, Model, Name

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class RequestSpec(Model):
    """A request; its texts may hold expressions. What names a value that is not there is left out."""

    method: Method = "GET"
    path: str = Field("", description="Continues base_url, or a whole URL of one of the `hosts`.")
    query: dict[str, Any] = Field({})
    headers: dict[str, str] = Field({})
    body: Any = Field(None, alias="json", description="The body, as JSON.")
    form: dict[str, Any] = Field({}, description="The body, as the fields of a form.")
    content: str | None = Field(None, description="The body as it is: a text, or an input that is a file.")
    cache: bool = Field(False, description="Keep answers, and ask with their ETag or date whether they still hold.")

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if sum([self.body is not None, bool(self.form), self.content is not None]) > 1:
            raise ValueError("a request has one body: json, form or content")
        return self


class CheckSpec(RequestSpec):
    """The request that tests a connection."""

    account: JsonPath | None = Field(None, description="Where its answer names the account.")


class ErrorRule(Model):
    """What an answer means, where its status alone does not say it. The first rule that fits counts."""

    status: int | list[int] | None = None
    when: Condition | None = Field(None, description="`body.PATH == 'text'`, `body.PATH != 1`, or a JSONPath that must select something.")
    do: Literal["retry", "skip", "fail", "refresh_auth"]
    cause: Literal["rate_limit", "quota", "auth", "permission", "missing"] | None = Field(
        None, alias="as", description="What the trouble is called: it decides what people are told to do."
    )
    wait: str | float = Field("backoff", description="Before a retry: backoff, header:NAME or seconds.")

    @field_validator("wait")
    @classmethod
    def _wait(cls, value: str | float) -> str | float:
        if isinstance(value, str) and value != "backoff" and not re.fullmatch(r"header:[\w-]+", value):
            raise ValueError(f"{value!r} is no wait; write backoff, header:NAME or a number of seconds")
        return value


# ---- answers ---------------------------------------------------------------------------------------------------------

Compression = Literal["none", "gzip", "zip", "auto"]


class _Response(Model):
    compression: Compression = Field(
        "none", description="The body is a compressed file (beside what HTTP itself compresses). `auto`: its first bytes tell which."
    )
    members: str = Field("*", description="The files of a zip that are read, as a pattern such as `*.csv`.")


class JsonResponse(_Response):
    """JSON, the usual."""

    kind: Literal["json"] = "json"


class JsonLinesResponse(_Response):
    """A JSON value on every line. `records` is `$`."""

    kind: Literal["jsonl"]


class CsvResponse(_Response):
    """Rows of text (RFC 4180). `records` is `$`; all values are text until `types` says otherwise."""

    kind: Literal["csv"]
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    quote: Annotated[str, Field(max_length=1)] = '"'
    columns: list[str] = Field([], description="The columns' names, where no header line gives them.")
    skip: int = Field(0, ge=0, description="Lines above the header.")
    encoding: str = "utf-8"
    empty: Literal["null", "text"] = Field("null", description="What an empty field without quotes is.")


class XmlResponse(_Response):
    """XML as JSON: an element is an object, attributes are `@name`, text beside them is `#text`, repeated elements are a list.

    Namespaces are dropped. `records` begins at the root element: `$.feed.entry`.
    """

    kind: Literal["xml"]
    lists: list[str] = Field(
        [], description="Elements that are lists even where there is one of them: by name, or by path (`feed.author`)."
    )


class BinaryResponse(_Response):
    """The whole answer is a file: it is stored, and the record says where (url, sha256, size, media_type, name)."""

    kind: Literal["binary"]
    max_bytes: int = Field(2 << 30, gt=0, description="Larger files are left out, with a warning.")


ResponseSpec = Annotated[JsonResponse | JsonLinesResponse | CsvResponse | XmlResponse | BinaryResponse, Field(discriminator="kind")]


class FileSpec(Model):
    """The file that belongs to a record: it is downloaded, and the record gets `NAME_url`, `_sha256`, `_size` and `_media_type`."""

    request: RequestSpec
    name: Name = Field("file", description="The beginning of the columns' names.")
    when: str | bool = Field(True, description="Whether to download at all: an input such as ${config.files}.")
    has: Condition | None = Field(None, description="A condition over the record (`$.file`): others have none.")
    media_type: JsonPath | None = Field(None, description="Where the record says it; else the answer does.")
    size: JsonPath | None = Field(None, description="Where the record says how many bytes it has, so that one too large is not begun.")
    version: JsonPath | None = Field(None, description="Where the record names the content's version: the same one is not read twice.")
    max_bytes: int | str = Field(2 << 30, description="Larger files are left out: `NAME_skipped` says so. May be an input.")


# ---- actions ---------------------------------------------------------------------------------------------------------


class Input(Model):
    """One field that a source of this connector may set, or that an action takes."""

    type: Literal["string", "integer", "number", "boolean", "duration", "list", "object", "file", "bytes"] = "string"
    default: Any = None
    required: bool = False
    secret: bool = False
    title: str = ""
    description: str = ""


class ActionSpec(Model):
    """Something to do at the provider. Its request may name `${input.NAME}`, or `${input}` as a whole."""

    title: str = ""
    description: str = ""
    request: RequestSpec
    input: dict[Name, Input] = Field({})
    output: JsonPath = Field("$", description="What of a JSON answer is given back.")
    response: Literal["json", "text", "binary", "none"] = Field(
        "json", description="Whether the answer is JSON, a text, a file to store, or nothing."
    )
    idempotency: str = Field("", description="The header in which the API takes an idempotency key; one is made unless it is given.")
