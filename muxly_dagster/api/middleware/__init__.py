"""What stands around every route, outermost first: watching, then for all but senders conditional answers, rate limits, body limits."""

from collections.abc import Callable, Sequence

from limits import RateLimitItem
from starlette.types import ASGIApp, Receive, Scope, Send

from muxly_dagster.api.middleware.bodies import Bodies
from muxly_dagster.api.middleware.conditional import Conditional
from muxly_dagster.api.middleware.counting import Requests
from muxly_dagster.api.middleware.limiting import RateLimited, rate_limit
from muxly_dagster.api.middleware.origins import allowed_origins, crossing
from muxly_dagster.api.middleware.watching import Watched

__all__ = ["Edge", "Requests", "allowed_origins", "rate_limit"]


class Edge:
    """All of it in one. Requests to `senders` (beginnings of addresses) pass nothing but the watching: they come by the thousand a second,
    and their routes have limits of their own. Pages of `origins` may send them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        requests: Requests,
        limit: RateLimitItem | None,
        who: Callable[[Scope], str],
        senders: Sequence[str],
        origins: tuple[str, ...],
    ) -> None:
        self._senders = tuple(senders)
        self._plain = Watched(crossing(app, origins), requests, log_all=False)
        self._full = Watched(Conditional(RateLimited(Bodies(app), limit, who)), requests, log_all=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(self._senders):
            await self._full(scope, receive, send)
        else:
            await self._plain(scope, receive, send)
