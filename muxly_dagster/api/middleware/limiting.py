"""Rate limits, counted in memory for each process: by who signs in, or by address."""

import math
import time
from collections.abc import Callable

import limits
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from muxly_dagster.api.problems import Problem, answer
from muxly_dagster.errors import ConfigurationError

OFF = "off"
_FREE = frozenset({"/healthz", "/readyz"})
"""Asked by whatever keeps the process running, from one address and often."""


def rate_limit(text: str) -> limits.RateLimitItem | None:
    """The limit that a text such as `600/minute` says; None for `off`. Raises ConfigurationError for anything else."""
    if text.strip().lower() == OFF:
        return None
    try:
        found = limits.parse_many(text)
    except ValueError:
        found = []
    if len(found) != 1 or found[0].amount < 1:
        raise ConfigurationError(f"MUXLY_RATE_LIMIT is {text!r}, which is no rate", do="write it like 600/minute or 20/second, or off")
    return found[0]


class RateLimited:
    """Refuses with 429 and Retry-After what is too much, and tells in RateLimit headers how much is left.

    The headers are those of draft-ietf-httpapi-ratelimit-headers, from its version 08 on.
    """

    def __init__(self, app: ASGIApp, limit: limits.RateLimitItem | None, who: Callable[[Scope], str]) -> None:
        self._app, self._limit, self._who = app, limit, who
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._limit is None or scope["path"] in _FREE:
            await self._app(scope, receive, send)
            return
        who = self._who(scope)
        admitted = self._limiter.hit(self._limit, who)
        stats = self._limiter.get_window_stats(self._limit, who)
        wait = max(1, math.ceil(stats.reset_time - time.time()))
        told = {
            "ratelimit-policy": f'"default";q={self._limit.amount};w={self._limit.get_expiry()}',
            "ratelimit": f'"default";r={stats.remaining};t={wait}',
        }
        if not admitted:
            problem = Problem(
                title="Too many requests",
                status=429,
                detail=f"at most {self._limit} from one client",
                do=f"wait {wait} seconds; MUXLY_RATE_LIMIT, where the API runs, sets the rate",
            )
            await answer(problem, scope["state"]["request_id"], told | {"retry-after": str(wait)})(scope, receive, send)
            return
        headers = [(name.encode(), value.encode()) for name, value in told.items()]

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        await self._app(scope, receive, telling)
