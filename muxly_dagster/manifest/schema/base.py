"""What all models of the manifest's language share: strictness, durations, JSONPaths, conditions, places in a request."""

import datetime as dt
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from muxly_dagster.decoding import parse_path
from muxly_dagster.manifest.language.conditions import parse_condition

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
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Model(BaseModel):
    """Unknown keys are refused, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
