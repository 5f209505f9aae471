"""What several routes answer with: records as JSON, checks that were made, names that do not exist."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from muxly_dagster import records
from muxly_dagster.api.problems import ApiError, not_found
from muxly_dagster.project.checks import did_you_mean

JSON = "application/json"


class Read(BaseModel):
    """Made from any object that has the fields as attributes."""

    model_config = ConfigDict(from_attributes=True)


class Check(Read):
    """Something that was looked at, and how that ended."""

    name: str = Field(description="What was looked at.", examples=["source crm"])
    status: Literal["ok", "failed"] = Field(description="How it ended.", examples=["ok"])
    tried: str = Field(description="What was done.", examples=["GET /account"])
    what: str = Field("", description="What came of it.", examples=["account 4711"])
    do: str = Field("", description="What to do where it failed.", examples=[""])


def json_answer(value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """JSON in the form records have everywhere: decimals as text, times in UTC, bytes in base64."""
    return Response(records.to_json(value), media_type=JSON, headers=dict(headers or {}))


def unknown(what: str, name: str, known: Iterable[str], otherwise: str) -> ApiError:
    """A 404 for a name, with the nearest one there is."""
    return not_found(f"there is no {what} named {name}", did_you_mean(name, known) or otherwise)
