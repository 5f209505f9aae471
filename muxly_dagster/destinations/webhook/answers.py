"""What a webhook's answers mean, and what is kept of them for people."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from muxly_dagster.errors import ConfigurationError, GoneError, MuxlyError, RetryLater, SourceError
from muxly_dagster.http import Outcome, Response, Verdict

Meaning = MuxlyError | str | None
"""An error that stops everything, the reason for which a record is refused, or None: it was taken."""

_EXCERPT = 200
_NOT_ABOUT_THE_RECORD = frozenset({401, 403, 408, 425, 429})
_GONE = 410


def judge(response: Response) -> Verdict | None:
    """Refusals and redirects are read here; everything else means what it usually means."""
    return "skip" if 300 <= response.status < 500 and response.status not in _NOT_ABOUT_THE_RECORD else None


def meaning(outcome: Outcome, host: str, of_records: bool) -> Meaning:
    """What an answer says of the records that were sent. `of_records`: the address was theirs, so that 404 and 410 are about them."""
    response = outcome.response
    if response is None:
        return _as_contract(outcome.error or RetryLater("the request ended without an answer", do="run it again", where=host))
    if response.status < 300:
        return None
    if response.status < 400:
        return ConfigurationError(f"the webhook has moved ({response.reason})", do="set `url` to its new address", where=host)
    if of_records and response.request.method == "DELETE" and response.status in (404, _GONE):
        return None  # it is not there, which is what was asked for: perhaps the answer to an earlier attempt was lost
    said = response.excerpt(_EXCERPT)
    told = f"{response.reason}: {said}" if said else response.reason
    if response.status == _GONE and not of_records:
        return GoneError(f"the receiver wants nothing more ({told})", do="take it out of the routes, or correct `url`", where=host)
    return told


def _as_contract(error: MuxlyError) -> MuxlyError:
    """An answer that is no use (not HTTP, a bad certificate, 501) is for a person to look at."""
    if isinstance(error, SourceError):
        return ConfigurationError(f"the webhook's answer is of no use: {error.what}", do=error.do or "correct `url`", where=error.where)
    return error


@dataclass(slots=True)
class Tally:
    """Every answer of a delivery, counted; the first and the last one as they were."""

    requests: int = 0
    attempts: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    _first: Response | None = None
    _last: Response | None = None

    def add(self, outcome: Outcome) -> None:
        """Count how a request ended."""
        course = outcome.course
        self.requests += 1
        self.attempts += len(course.statuses)
        for status in course.statuses:
            self.statuses[status] += 1
        if outcome.response is not None:
            self.seconds.append(course.seconds)
            self._first = self._first or outcome.response
            self._last = outcome.response

    @property
    def last(self) -> str:
        """The last answer's status in words."""
        return self._last.reason if self._last else ""

    def detail(self) -> dict[str, Any]:
        """What the receipt says: requests, attempts, answers by status, the first and the last, and how long they took in ms."""
        told: dict[str, Any] = {"requests": self.requests, "attempts": self.attempts}
        told["statuses"] = {str(status) if status else "no answer": count for status, count in sorted(self.statuses.items())}
        if self._first is not None and self._last is not None:
            told |= {"first": _shown(self._first), "last": _shown(self._last), "latency_ms": self._latencies()}
        return told

    def _latencies(self) -> dict[str, float]:
        """The median, the time that 95 in a hundred did not exceed (nearest rank), and the longest."""
        ranked = sorted(self.seconds)
        places = {"p50": 50, "p95": 95, "max": 100}
        return {name: round(1000 * ranked[-(-len(ranked) * percent // 100) - 1], 2) for name, percent in places.items()}


def _shown(response: Response) -> dict[str, Any]:
    return {"status": response.status, "body": response.excerpt(_EXCERPT)}
