"""The property's own list of dimensions and metrics: what is called otherwise now, what is unknown, and what does not go together."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from google.analytics.data_v1beta.types import CheckCompatibilityRequest, Compatibility

from muxly_dagster.connectors.ga4.client import Client
from muxly_dagster.connectors.ga4.refusals import InvalidRequest
from muxly_dagster.connectors.ga4.reports import REALTIME_DIMENSIONS, REALTIME_METRICS, Report
from muxly_dagster.connectors.ga4.rows import metric_type
from muxly_dagster.errors import Problem
from muxly_dagster.project.checks import did_you_mean


class Names:
    """All that getMetadata tells of names."""

    def __init__(self, metadata: Any) -> None:
        self.dimensions = {found.api_name: found for found in metadata.dimensions}
        self.metrics = {found.api_name: found for found in metadata.metrics}
        self._old_dimensions = {old: name for name, found in self.dimensions.items() for old in found.deprecated_api_names}
        self._old_metrics = {old: name for name, found in self.metrics.items() for old in found.deprecated_api_names}

    def types(self) -> dict[str, pa.DataType]:
        """The metrics' types in the lake."""
        return {name: metric_type(found.type_) for name, found in self.metrics.items()}

    def renamed(self, report: Report) -> dict[str, str]:
        """The report's names that are other ones now, with those."""
        old = {**self._old_dimensions, **self._old_metrics}
        names = [*report.columns, *report.filtered_fields()]
        asked = dict(zip(names, report.asked(names), strict=True))
        new: dict[str, str] = {}
        for name, now in asked.items():
            base, colon, event = now.partition(":")
            if now not in self.dimensions and now not in self.metrics and (now in old or base in old):
                new[name] = old.get(now) or old[base] + colon + event
        return new

    def problems(self, report: Report) -> list[Problem]:
        """A problem for each name that the property does not have, and for each metric that this account may not see."""
        found = []
        for kind, columns, known, other in (
            ("dimension", report.dimensions, self.dimensions, self.metrics),
            ("metric", report.metrics, self.metrics, self.dimensions),
        ):
            for column, name in zip(columns, report.asked(columns), strict=True):
                if name in other:
                    wrong = "metric" if kind == "dimension" else "dimension"
                    found.append(Problem(column, f"is a {wrong}, not a {kind}", f"move it to `{wrong}s`"))
                elif name not in known:
                    found.append(Problem(column, f"the property has no {kind} of this name", did_you_mean(name, known)))
                elif blocked := [reason.name for reason in getattr(known[name], "blocked_reasons", ())]:
                    do = "ask an administrator, or leave it out"
                    found.append(Problem(column, f"this account may not see it ({', '.join(blocked)})", do))
        for column, name in zip(report.filtered_fields(), report.asked(report.filtered_fields()), strict=True):
            if name not in self.dimensions and name not in self.metrics:
                hint = did_you_mean(name, [*self.dimensions, *self.metrics])
                found.append(Problem(column, "a filter names it, and the property has nothing of this name", hint))
        return found


def realtime_problems(report: Report) -> list[Problem]:
    """A problem for each name that realtime reports do not have."""
    found = []
    for kind, columns, known in (("dimension", report.dimensions, REALTIME_DIMENSIONS), ("metric", report.metrics, REALTIME_METRICS)):
        for column, name in zip(columns, report.asked(columns), strict=True):
            if name not in known and not (kind == "dimension" and name.startswith("customUser:")):
                found.append(Problem(column, f"a realtime report has no {kind} of this name", did_you_mean(name, known)))
    return found


def incompatible(client: Client, report: Report, filters: Mapping[str, Any]) -> list[Problem]:
    """A problem for each dimension or metric that cannot stand beside those before it.

    checkCompatibility refuses a report that does not go together as a whole, without a list. It is then asked what goes with the first
    field, with the first two, and so on: as many requests as the report has fields, and only for a report that is wrong.
    """
    try:
        answer = client.compatibility(_request(client, report.asked(report.dimensions), report.asked(report.metrics), filters))
        return _not_compatible(answer, report, report.columns)
    except InvalidRequest as error:
        refused = error
    found: list[Problem] = []
    dimensions: list[str] = []
    metrics: list[str] = []
    for column in report.columns:
        if dimensions or metrics:
            answer = client.compatibility(_request(client, report.asked(dimensions), report.asked(metrics), {}))
            if wrong := _not_compatible(answer, report, [column]):
                beside = ", ".join([*dimensions, *metrics])
                found += [Problem(problem.path, f"cannot be asked together with {beside}", problem.do) for problem in wrong]
                continue
        (dimensions if column in report.dimensions else metrics).append(column)
    return found or [Problem("", refused.said, "correct the pull's dimensions, metrics and filters")]


def _request(client: Client, dimensions: Sequence[str], metrics: Sequence[str], filters: Mapping[str, Any]) -> CheckCompatibilityRequest:
    return CheckCompatibilityRequest(
        property=client.property,
        dimensions=[{"name": name} for name in dimensions],
        metrics=[{"name": name} for name in metrics],
        **filters,
    )


def _not_compatible(answer: Any, report: Report, columns: Sequence[str]) -> list[Problem]:
    said = {found.dimension_metadata.api_name: found.compatibility for found in answer.dimension_compatibilities}
    said |= {found.metric_metadata.api_name: found.compatibility for found in answer.metric_compatibilities}
    names = zip(columns, report.asked(columns), strict=True)
    wrong = [column for column, name in names if said.get(name) == Compatibility.INCOMPATIBLE]
    return [Problem(column, "cannot be asked together with the rest of the report", "leave it out, or make two pulls") for column in wrong]
