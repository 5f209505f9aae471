"""How many requests this process has answered, with what and how fast."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import Metric

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
UNKNOWN = "unknown"


class Requests:
    """Figures of one process. Routes are named as they are declared, so that no client can make series without end."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counter = Counter(
            "muxly_api_requests", "Requests that the API has answered.", ["method", "route", "status"], registry=self._registry
        )
        self._histogram = Histogram(
            "muxly_api_request_seconds",
            "How long the API took to answer, until the last byte.",
            ["method", "route"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        # Looking a series up by its labels costs more than counting.
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._histograms: dict[tuple[str, str], Histogram] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        method, route = method if method in _METHODS else "other", route or UNKNOWN
        counter = self._counters.get((method, route, status))
        if counter is None:
            counter = self._counters[method, route, status] = self._counter.labels(method, route, str(status))
        counter.inc()
        histogram = self._histograms.get((method, route))
        if histogram is None:
            histogram = self._histograms[method, route] = self._histogram.labels(method, route)
        histogram.observe(seconds)

    def families(self, *, created: bool = False) -> Iterable[Metric]:
        """The figures for a scraper; `created` adds when each of them began to count, as OpenMetrics has it."""
        for family in self._registry.collect():
            if not created:
                family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
