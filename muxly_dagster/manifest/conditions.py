"""What a manifest's error rules ask of an answer: `body.path == 'text'`, or a JSONPath that must select something."""

import datetime as dt
import json
import re
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from muxly_dagster.decoding import Selector, parse_path
from muxly_dagster.http import Judge, Response, Verdict

if TYPE_CHECKING:
    from muxly_dagster.manifest.schema import ErrorRule

_COMPARISON = re.compile(r"""(?P<path>(?:body|\$).*?)\s*(?P<sign>==|!=)\s*(?P<value>'[^']*'|"[^"]*"|-?\d+(?:\.\d+)?|true|false|null)""")
_FAR = 1_000_000_000  # a wait longer than thirty years is a time of day (X-RateLimit-Reset)


def parse_condition(text: str) -> Callable[[Any], bool]:
    """A test of an answer's body. Raises ValueError that says what is wrong."""
    comparison = _COMPARISON.fullmatch(text.strip())
    if comparison is None:
        if not text.strip().startswith(("$", "body")):
            raise ValueError(f"{text!r} is no condition; write body.PATH == 'text' or a JSONPath")
        exists = _path(text.strip())
        return lambda body: exists.first(body) is not None
    path, same = _path(comparison["path"]), comparison["sign"] == "=="
    value = comparison["value"]
    wanted = value[1:-1] if value[0] in "'\"" else json.loads(value)
    return lambda body: (path.first(body) == wanted) is same


def _path(text: str) -> Selector:
    return parse_path("$" + text.removeprefix("body") if text.startswith("body") else text)


def judge(rules: "Sequence[ErrorRule]") -> Judge | None:
    """The rules as the HTTP client asks for them; None where there are none."""
    if not rules:
        return None
    parsed = [(rule, _statuses(rule.status), parse_condition(rule.when) if rule.when else None) for rule in rules]

    def verdict(response: Response) -> Verdict | tuple[Verdict, float | None] | None:
        for rule, statuses, condition in parsed:
            if statuses and response.status not in statuses:
                continue
            if condition is None:
                if not statuses and response.status < 400:
                    continue
            elif not _holds(condition, response):
                continue
            return (rule.do, _wait(rule.wait, response)) if rule.do == "retry" else rule.do
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
