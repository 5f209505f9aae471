"""A manifest's error rules as the HTTP client asks for them: what becomes of an answer, and how long to wait."""

import datetime as dt
import json
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from muxly_dagster.http import Cause, Judge, Response, Verdict
from muxly_dagster.manifest.language.conditions import parse_condition
from muxly_dagster.manifest.schema import ErrorRule

_FAR = 1_000_000_000  # a wait longer than thirty years is a time of day (X-RateLimit-Reset)


class Expiry:
    """The answers that say that a token of changes is too old. A request that sends a token bears it as its tag."""

    def __init__(self, signs: Sequence[int | str]) -> None:
        self._statuses = frozenset(sign for sign in signs if isinstance(sign, int))
        self._conditions = [parse_condition(sign) for sign in signs if isinstance(sign, str)]

    def fits(self, response: Response) -> bool:
        """Whether this answer says so."""
        return response.status in self._statuses or any(_holds(condition, response) for condition in self._conditions)


def judge(rules: Sequence[ErrorRule], *, expiring: bool = False) -> Judge | None:
    """The rules as the HTTP client asks for them; None where there are none. `expiring`: some requests may bear an `Expiry`."""
    if not rules and not expiring:
        return None
    parsed = [(rule, _statuses(rule.status), parse_condition(rule.when) if rule.when else None) for rule in rules]

    def verdict(response: Response) -> Verdict | tuple[Verdict, float | None, Cause | None] | None:
        tag = response.request.tag
        if isinstance(tag, Expiry) and tag.fits(response):
            return "skip"  # no error: whoever sent the token knows what to do
        for rule, statuses, condition in parsed:
            if statuses and response.status not in statuses:
                continue
            if condition is None:
                if not statuses and response.status < 400:
                    continue
            elif not _holds(condition, response):
                continue
            if rule.do == "skip":
                return "skip"
            wait = _wait(rule.wait, response) if rule.do == "retry" else None
            return "sign_in" if rule.do == "refresh_auth" else rule.do, wait, rule.cause
        return None

    return verdict


def _statuses(status: int | list[int] | None) -> frozenset[int]:
    return frozenset() if status is None else frozenset([status] if isinstance(status, int) else status)


def _holds(condition: Callable[[Any], bool], response: Response) -> bool:
    try:
        return condition(json.loads(response.content))
    except (ValueError, RecursionError):
        return False


def _wait(wait: str | float, response: Response) -> float | None:
    if isinstance(wait, int | float):
        return float(wait)
    text = response.headers.get(wait.removeprefix("header:"), "") if wait.startswith("header:") else ""
    now = dt.datetime.now(dt.UTC)
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - now).total_seconds()
        except (ValueError, TypeError):
            return None
    if seconds > _FAR:
        seconds -= now.timestamp()
    return max(0.0, seconds) if seconds < float("inf") else None
