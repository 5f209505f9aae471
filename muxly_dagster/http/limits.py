"""Rate budgets: how many requests may start, and how many may be under way, for a whole client or for some of its paths."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_CATCH_UP = 0.02
"""Seconds a late request may be made up for: sleeping is never exact, and a paced client should still reach its rate."""


class Limit(BaseModel):
    """What an API allows: a steady rate, a number of requests per window, a number at the same time; together all hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_second: float | None = Field(None, gt=0, description="Requests per second, evenly spaced.")
    requests: int | None = Field(None, gt=0, description="Requests per `window`.")
    window: float | None = Field(None, gt=0, description="Length of the sliding window, in seconds.")
    concurrency: int | None = Field(None, gt=0, description="Requests at the same time.")
    path: str | None = Field(None, description="Only for URL paths that match this pattern, such as `/search/*`.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.requests is None) != (self.window is None):
            raise ValueError("`requests` and `window` go together: so many requests per so many seconds")
        if self.per_second is None and self.requests is None and self.concurrency is None:
            raise ValueError("a limit needs `per_second`, `requests` with `window`, or `concurrency`")
        return self

    def __str__(self) -> str:
        """In words: `100 requests per 10 s, 4 at a time for /search/*`."""
        said = [f"{self.per_second:g} requests per second"] if self.per_second else []
        said += [f"{self.requests:,} requests per {self.window:g} s"] if self.requests else []
        said += [f"{self.concurrency} at a time"] if self.concurrency else []
        return ", ".join(said) + (f" for {self.path}" if self.path else "")


class Stopped(Exception):
    """The wait for a turn ended because nobody wants the answer any more."""


class Budget:
    """What is left of one limit. Guarded by the lock of its Budgets."""

    def __init__(self, limit: Limit | None) -> None:
        self.path = limit.path if limit else None
        self.spacing = 1 / limit.per_second if limit and limit.per_second else 0.0
        self.window = limit.window if limit and limit.window else 0.0
        self.concurrency = limit.concurrency if limit else None
        self.started: deque[float] = deque(maxlen=limit.requests if limit and limit.requests else 0)
        self.next_at = 0.0
        self.paused_until = 0.0
        self.running = 0

    def covers(self, path: str, below_base: str) -> bool:
        return self.path is None or fnmatchcase(path, self.path) or fnmatchcase(below_base, self.path)

    def opens_at(self) -> float:
        full = self.window > 0 and len(self.started) == self.started.maxlen
        return max(self.paused_until, self.next_at, self.started[0] + self.window if full else 0.0)

    def has_room(self) -> bool:
        return self.concurrency is None or self.running < self.concurrency

    def take(self, now: float) -> None:
        self.running += 1
        if self.spacing:
            self.next_at = max(self.next_at, now - _CATCH_UP) + self.spacing
        if self.window:
            self.started.append(now)


class Budgets:
    """The limits of one client, kept by all of its threads together. There is always a budget for the whole client."""

    def __init__(self, limits: Sequence[Limit], base_path: str = "") -> None:
        self._base_path = base_path.rstrip("/")
        self._whole = Budget(None)
        self._budgets = [Budget(limit) for limit in limits]
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)

    def start(self, path: str, stop: threading.Event) -> list[Budget]:
        """Wait until every budget for this URL path has room and take a turn; hand the result to `finish`. Raises Stopped."""
        mine = [self._whole, *self._covering(path)] if self._budgets else [self._whole]
        with self._changed:
            while True:
                if stop.is_set():
                    raise Stopped
                now = time.monotonic()
                opens_at = max(budget.opens_at() for budget in mine)
                has_room = all(budget.has_room() for budget in mine)
                if has_room and opens_at <= now:
                    break
                self._changed.wait(opens_at - now if has_room else None)
            for budget in mine:
                budget.take(now)
        return mine

    def start_now(self, path: str) -> list[Budget] | None:
        """Take a turn if there is one this very moment; None if it would have to be waited for."""
        if not self._budgets:
            return [] if self._whole.paused_until <= time.monotonic() else None
        mine = [self._whole, *self._covering(path)]
        with self._lock:
            now = time.monotonic()
            if not all(budget.has_room() and budget.opens_at() <= now for budget in mine):
                return None
            for budget in mine:
                budget.take(now)
        return mine

    def finish(self, taken: list[Budget]) -> None:
        """Give a turn back."""
        if not taken:
            return
        with self._changed:
            for budget in taken:
                budget.running -= 1
            if self._budgets:
                self._changed.notify_all()

    def pause(self, path: str, seconds: float) -> None:
        """Start no request for a while, as the server asked: in the path's own budgets where it has some, else in the whole client."""
        until = time.monotonic() + seconds
        with self._changed:
            for budget in self._blamed(path):
                budget.paused_until = max(budget.paused_until, until)

    def wake(self) -> None:
        """Let waiting threads notice that their stop event was set."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Give back whatever is held elsewhere; nothing here."""

    def _blamed(self, path: str) -> list[Budget]:
        """The budgets that are used up when the server says so for this path."""
        mine = self._covering(path)
        return [b for b in mine if b.path is not None] or mine or [self._whole]

    def _covering(self, path: str) -> list[Budget]:
        below = path[len(self._base_path) :] if path.startswith(self._base_path + "/") else path
        return [budget for budget in self._budgets if budget.covers(path, below)]
