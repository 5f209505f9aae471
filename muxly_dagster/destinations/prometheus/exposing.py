"""Series as text: Prometheus' own format and OpenMetrics 1.0, by the exposition of prometheus-client."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from muxly_dagster.destinations.prometheus.metric import Metric
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.services import Series

TEXT = CONTENT_TYPE_PLAIN_0_0_4


@dataclass(frozen=True, slots=True)
class Part:
    """What one target shows: its metrics, with their series."""

    name: str
    metrics: Sequence[Metric]
    series: Sequence[Series]


def merged(parts: Sequence[Part]) -> list[tuple[Metric, list[Series]]]:
    """Metrics of the same name as one: what is counted adds up, of a gauge the newest value is shown.

    Raises ConfigurationError when two of one name are not the same kind of thing: no scraper could read them.
    """
    check(parts)
    found: dict[str, tuple[Metric, dict[tuple[tuple[str, str], ...], Series]]] = {}
    for part in parts:
        for metric in part.metrics:
            found.setdefault(metric.family, (metric, {}))
        for series in part.series:
            if series.metric in found and not series.gone:
                held = found[series.metric][1]
                labels = tuple(pair for pair in series.labels if pair[1])  # to a scraper, an empty label is none
                held[labels] = _together(held[labels], series) if labels in held else series
    return [(metric, [held[labels] for labels in sorted(held)]) for metric, held in found.values()]


def check(parts: Sequence[Part]) -> None:
    """Raise ConfigurationError when two targets have metrics of the same name that do not go together."""
    for number, part in enumerate(parts):
        for other in parts[:number]:
            for metric in part.metrics:
                for before in other.metrics:
                    if (what := _apart(before, metric)) is not None:
                        raise ConfigurationError(
                            f"the metric {metric.name} of {part.name} and {before.name} of {other.name} {what}",
                            do="give one of them another name",
                        )


def _apart(one: Metric, other: Metric) -> str | None:
    if one.family != other.family:
        shared = (one.sample_names | {one.family}) & (other.sample_names | {other.family})
        return f"would both have series named {min(shared)}" if shared else None
    if one.type != other.type:
        return f"have one name, but one is a {one.type} and the other a {other.type}"
    if one.unit != other.unit:
        return f"have one name, but the units {one.unit or 'none'} and {other.unit or 'none'}"
    if one.type == "histogram" and one.bounds != other.bounds:
        return "have one name, but different buckets"
    return None


def _together(one: Series, other: Series) -> Series:
    if one.kind == "gauge":
        return max(one, other, key=lambda series: series.at)
    buckets = tuple((bound, count + more) for (bound, count), (_, more) in zip(one.buckets, other.buckets, strict=True))
    created = min(one.created_at, other.created_at)
    return replace(one, value=one.value + other.value, count=one.count + other.count, buckets=buckets, created_at=created)


@dataclass(frozen=True, slots=True)
class _Families(Collector):
    """What the exposition asks for."""

    families: Sequence[MetricFamily]

    def collect(self) -> Iterator[MetricFamily]:
        """All of them."""
        return iter(self.families)


def text(shown: Iterable[tuple[Metric, Sequence[Series]]], content_type: str = TEXT) -> bytes:
    """The exposition in one of the two formats; metrics without series are left out."""
    return page([family(metric, series, created=content_type == OPENMETRICS) for metric, series in shown if series], content_type)


def page(families: Sequence[MetricFamily], content_type: str = TEXT) -> bytes:
    """Any metric families as text, in one of the two formats."""
    shown = _Families(families)
    return generate_openmetrics(shown) if content_type == OPENMETRICS else generate_latest(shown)  # type: ignore[no-untyped-call]


def family(metric: Metric, series: Iterable[Series], *, created: bool = False) -> MetricFamily:
    """A metric family with these series as its samples; `created` adds when each of them began to count."""
    made: MetricFamily = _FAMILIES[metric.type](metric.family, metric.help)
    made.unit = metric.unit
    for each in series:
        for name, labels, value in samples(each):
            made.add_sample(name, labels, value)
        if created and metric.type != "gauge":
            made.add_sample(f"{metric.family}_created", dict(each.labels), each.created_at / 1000)
    return made


def samples(series: Series) -> list[tuple[str, dict[str, str], float]]:
    """The samples that show a series: name, labels, value."""
    name, labels = series.metric, dict(series.labels)
    if series.kind == "gauge":
        return [(name, labels, series.value)]
    if series.kind == "counter":
        return [(f"{name}_total", labels, series.value)]
    shown: list[tuple[str, dict[str, str], float]] = []
    if series.kind == "histogram":
        upto = 0
        for bound, count in series.buckets:
            upto += count
            shown.append((f"{name}_bucket", labels | {"le": str(floatToGoString(bound))}, upto))  # type: ignore[no-untyped-call]
        shown.append((f"{name}_bucket", labels | {"le": "+Inf"}, series.count))
        if series.buckets and series.buckets[0][0] < 0:  # a sum that can fall is no counter (OpenMetrics 1.0, 5.3)
            return shown
    return [*shown, (f"{name}_count", labels, series.count), (f"{name}_sum", labels, series.value)]


_FAMILIES = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
    "summary": SummaryMetricFamily,
}


def negotiated(accept: str) -> str:
    """The content type to answer an Accept header with (RFC 9110, 12.5.1): OpenMetrics 1.0 where it is wanted at least as much as text."""
    weights = {OPENMETRICS: 0.0, TEXT: 0.0}
    exact = {OPENMETRICS: -1, TEXT: -1}
    for part in accept.split(","):
        media, *parameters = [each.strip().lower() for each in part.split(";")]
        said = dict(each.split("=", 1) for each in parameters if "=" in each)
        for kind, (mine, versions) in _FORMATS.items():
            how = ("*/*", mine.partition("/")[0] + "/*", mine).index(media) if media in ("*/*", mine.partition("/")[0] + "/*", mine) else -1
            if how < exact[kind] or how < 0 or (how == 2 and said.get("version", versions[0]) not in versions):
                continue
            weight = _weight(said.get("q", "1"))
            weights[kind] = max(weight, weights[kind]) if how == exact[kind] else weight
            exact[kind] = how
    asked_by_name = exact[OPENMETRICS] == 2
    return OPENMETRICS if asked_by_name and weights[OPENMETRICS] and weights[OPENMETRICS] >= weights[TEXT] else TEXT


_FORMATS = {OPENMETRICS: ("application/openmetrics-text", ("1.0.0", "0.0.1")), TEXT: ("text/plain", ("0.0.4",))}


def _weight(said: str) -> float:
    try:
        return min(1.0, max(0.0, float(said)))
    except ValueError:
        return 0.0
