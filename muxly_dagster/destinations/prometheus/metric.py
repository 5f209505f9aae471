"""What a metric is declared by, and what it may be called: the data model of Prometheus, the names of OpenMetrics 1.0."""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Kind = Literal["gauge", "counter", "histogram", "summary"]

MOST_IN_A_SUM = 1e300
"""The largest value that is counted: so far below what a float holds that millions of such values can be added up."""

_METRIC = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_UNIT = re.compile(r"[a-zA-Z0-9_]+")
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "gauge": ("",),
    "counter": ("_total", "_created"),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
    "summary": ("", "_count", "_sum", "_created"),
}
_FORBIDDEN = ("_total", "_bucket", "_created")
_LONGEST = 200


def _columns(value: Any) -> Any:
    """`[country, plan]` as `{country: country, plan: plan}`."""
    return {name: name for name in value} if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value) else value


class Metric(BaseModel):
    """One metric and the columns it is made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="What it is called, without the endings that its unit and kind bring: `orders`, not `orders_total`.")
    type: Kind = Field(
        description="gauge: the newest value. counter: a sum that only grows. histogram: how many values up to each of `buckets`, and "
        "their sum. summary: how many values, and their sum."
    )
    help: str = Field("", description="What it says, for people.")
    unit: str = Field("", description="The unit, such as seconds, bytes or euros; it becomes the end of the name.")
    value: str | float = Field(
        1.0, description="The column that holds the value, or a number; 1, which counts records, unless told otherwise."
    )
    labels: Annotated[dict[str, str], BeforeValidator(_columns, json_schema_input_type=dict[str, str] | list[str])] = Field(
        {}, description="Labels and the columns they come from; a list where both have the same name.", examples=[["country", "plan"]]
    )
    fixed: dict[str, str] = Field({}, description="Labels that are the same for all records.", examples=[{"env": "prod"}])
    buckets: tuple[float, ...] = Field((), description="histogram: the upper bounds of the buckets, ascending; `+Inf` is added.")
    counts: Literal["changes", "keys"] = Field(
        "changes",
        description="All but gauges. changes: every change of a record that gets here. keys: each record once, when it first gets here.",
    )
    nulls: Literal["refuse", "skip"] = Field(
        "refuse", description="All but gauges: what happens to a record without a value. skip: it adds nothing. A gauge of it always ends."
    )
    max_series: int | None = Field(
        None, ge=1, description="Most combinations of label values; the destination's `max_series` unless told otherwise."
    )
    version: int = Field(1, description="Raise it to begin anew with nothing counted.")

    @field_validator("value", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("must be the name of a column, or a number")
        return value

    @field_validator("name")
    @classmethod
    def _metric_name(cls, name: str) -> str:
        if ":" in name:
            raise ValueError(f"{name!r} has a colon, which Prometheus keeps for recording rules; write `{_alike(name)}`")
        if not _METRIC.fullmatch(name):
            raise ValueError(f"{name!r} is no metric name: letters, digits and _ only, no digit first; write `{_alike(name)}`")
        if len(name) > _LONGEST:
            raise ValueError(f"is longer than {_LONGEST} characters")
        return name

    @field_validator("unit")
    @classmethod
    def _unit_name(cls, unit: str) -> str:
        if unit and not _UNIT.fullmatch(unit):
            raise ValueError(f"{unit!r} is no unit: letters, digits and _ only, such as seconds, bytes, ratio")
        return unit

    @field_validator("labels", "fixed")
    @classmethod
    def _label_names(cls, labels: dict[str, str]) -> dict[str, str]:
        for name in labels:
            if not _LABEL.fullmatch(name):
                advice = f"write `{{{_alike(name)}: {labels[name]}}}`"
                raise ValueError(f"{name!r} is no label name: letters, digits and _ only, no digit first; {advice}")
            if name.startswith("__"):
                raise ValueError(f"{name!r} begins with __, which Prometheus keeps for itself; take another name")
        return labels

    @field_validator("buckets")
    @classmethod
    def _ascending(cls, buckets: tuple[float, ...]) -> tuple[float, ...]:
        bounds = tuple(bound for bound in buckets if bound != math.inf)
        if not all(map(math.isfinite, bounds)) or list(bounds) != sorted(set(bounds)):
            raise ValueError("must be different numbers in ascending order")
        if buckets and not bounds:
            raise ValueError("needs a bound beside +Inf, which is added by itself")
        return bounds

    @model_validator(mode="after")
    def _consistent(self) -> "Metric":
        ending = next((suffix for suffix in _FORBIDDEN if self.name.endswith(suffix)), "")
        if ending and not (ending == "_total" and self.type == "counter"):
            whose = "counter" if ending == "_total" else "histogram"
            raise ValueError(f"{self.name}: only a {whose}'s own series end in {ending}; leave it out")
        if not self.family:
            raise ValueError(f"{self.name} is nothing but an ending; name what is counted")
        if twice := self.labels.keys() & self.fixed.keys():
            raise ValueError(f"{self.name}: the label {min(twice)} is in `labels` and in `fixed`; leave it out of one")
        reserved = {"histogram": "le", "summary": "quantile"}.get(self.type)
        if reserved in {*self.labels, *self.fixed}:
            raise ValueError(f"{self.name}: the label {reserved} is the {self.type}'s own; take another name")
        if self.buckets and self.type != "histogram":
            raise ValueError(f"{self.name}: only a histogram has `buckets`")
        if self.type == "gauge" and self.counts == "keys":
            raise ValueError(f"{self.name}: a gauge counts nothing; leave `counts` out")
        if self.type in ("histogram", "summary") and not isinstance(self.value, str):
            raise ValueError(f"{self.name}: a {self.type} needs `value`, the column to observe")
        if isinstance(self.value, float) and (not abs(self.value) <= MOST_IN_A_SUM or (self.type == "counter" and self.value < 0)):
            raise ValueError(f"{self.name}: `value` must be a number, and a counter's not below 0")
        return self

    @property
    def family(self) -> str:
        """The name of the metric family: with its unit, without `_total` (OpenMetrics 1.0, 4.5)."""
        name = self.name.removesuffix("_total") if self.type == "counter" else self.name
        return f"{name}_{self.unit}" if self.unit and name != self.unit and not name.endswith(f"_{self.unit}") else name

    @property
    def sample_names(self) -> set[str]:
        """The names of everything that its series may be called."""
        return {self.family + suffix for suffix in _SUFFIXES[self.type]}

    @property
    def bounds(self) -> tuple[float, ...]:
        """The upper bounds of a histogram's buckets, without +Inf."""
        return self.buckets or _BUCKETS

    @property
    def below_zero(self) -> bool:
        """Whether values below 0 may be observed: then a histogram's sum can fall, and is not shown."""
        return self.type == "gauge" or (self.type == "histogram" and self.bounds[0] < 0)

    @property
    def columns(self) -> dict[str, str]:
        """The columns that are needed, by the setting that names them."""
        value = {"value": self.value} if isinstance(self.value, str) else {}
        return value | {f"labels.{label}": column for label, column in self.labels.items()}

    @property
    def definition(self) -> str:
        """A hash of everything that values depend on."""
        said = self.model_dump(mode="json", include={"type", "value", "labels", "fixed", "counts", "version"})
        bounds = self.bounds if self.type == "histogram" else ()
        text = json.dumps([self.family, said, bounds], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def clash(metrics: Sequence[Metric]) -> str:
    """What is wrong with metrics that stand side by side: two whose series would have the same name; empty where nothing is."""
    for one, other in combinations(metrics, 2):
        if one.family == other.family:
            return f"two metrics are named {one.family}; name them apart"
        shared = (one.sample_names | {one.family}) & (other.sample_names | {other.family})
        if shared:
            return f"{one.name} and {other.name} would both have series named {min(shared)}; name them apart"
    return ""


def _alike(name: str) -> str:
    """The nearest name that is allowed."""
    text = re.sub(r"\W|:", "_", name, flags=re.ASCII).strip("_") or "metric"
    return f"_{text}" if text[0].isdigit() else text
