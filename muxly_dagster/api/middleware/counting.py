"""How many requests this process has answered, with what and how fast."""

import bisect
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
UNKNOWN = "unknown"


@dataclass(slots=True)
class _Route:
    """The answers of one route: how many of each status and since when (seconds since 1970), how long they took, and how many took up to
    each of `_SECONDS`."""

    statuses: dict[int, int] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)
    began: float = field(default_factory=time.time)
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(_SECONDS) + 1))


class Requests:
    """Figures of one process. Routes are named as they are declared, so that no client can make series without end.

    Plain numbers: prometheus_client's own counters, which are safe in all threads, cost more than taking in an event does. Counted is in
    the thread of the event loop.
    """

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], _Route] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        found = self._routes.get((method, route))
        if found is None:
            named = method if method in _METHODS else "other", route or UNKNOWN
            found = self._routes.setdefault(named, _Route())
        if status in found.statuses:
            found.statuses[status] += 1
        else:
            found.since[status] = time.time()
            found.statuses[status] = 1
        found.seconds += seconds
        found.buckets[bisect.bisect_left(_SECONDS, seconds)] += 1

    def families(self, *, created: bool = False) -> Iterable[Metric]:
        """The figures for a scraper; `created` adds when each of them began to count, as OpenMetrics has it."""
        answered = CounterMetricFamily("muxly_api_requests", "Requests that the API has answered.", labels=["method", "route", "status"])
        took = HistogramMetricFamily(
            "muxly_api_request_seconds", "How long the API took to answer, until the last byte.", labels=["method", "route"]
        )
        for (method, route), each in list(self._routes.items()):
            for status, count in list(each.statuses.items()):
                answered.add_metric([method, route, str(status)], count, created=each.since[status] if created else None)
            total, buckets = 0, []
            for upto, count in zip((*_SECONDS, "+Inf"), list(each.buckets), strict=True):
                total += count
                buckets.append((str(upto), float(total)))
            took.add_metric([method, route], buckets, sum_value=each.seconds)
            if created:
                took.add_sample("muxly_api_request_seconds_created", {"method": method, "route": route}, each.began)
        return [answered, took]
