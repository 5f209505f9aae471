"""Token sources: access tokens asked for when a request needs one, kept while they are valid, shared by every client of this process."""

import copy
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from muxly_dagster.errors import MuxlyError
from muxly_dagster.http.token_endpoint import Token

_MARGIN = 60.0
"""Seconds before its end from which a token is not used any more, at most a fifth of its life: a request takes time to arrive."""


class Grant(Protocol):
    """A way to come by access tokens. Its repr says where they come from, and no secret."""

    def ask(self) -> Token:
        """Ask for a new one. Raises SignInError, RetryLater, ConfigurationError, SourceError."""

    def secrets(self) -> Sequence[str]:
        """What it shows to get one."""


class _Held(NamedTuple):
    headers: Mapping[str, str]
    until: float


class Tokens:
    """A TokenSource (see `auth`) of what a grant gives. Many threads that need a token at the same time ask once, and fail together."""

    def __init__(self, grant: Grant, header: str = "Authorization", prefix: str = "Bearer ") -> None:
        self._grant, self._header, self._prefix = grant, header, prefix
        self._held: _Held | None = None
        self._coming: Future[_Held] | None = None
        self._given: deque[str] = deque(maxlen=4)
        self._lock = threading.Lock()

    def headers(self) -> Mapping[str, str]:
        """The header with a token that is valid now. Raises SignInError, RetryLater, ConfigurationError, SourceError."""
        held = self._held
        if held is not None and time.monotonic() < held.until:
            return held.headers
        with self._lock:
            held = self._held
            if held is not None and time.monotonic() < held.until:
                return held.headers
            coming = self._coming
            if coming is None:
                mine = self._coming = Future()
        if coming is not None:
            error = coming.exception()
            if error is not None:
                raise copy.copy(error)  # each thread's own: whoever catches it may add to it
            return coming.result().headers
        try:
            token = self._grant.ask()
        except BaseException as failure:
            with self._lock:
                self._coming = None
            mine.set_exception(copy.copy(failure) if isinstance(failure, MuxlyError) else failure)
            raise
        held = self._hold(token)
        mine.set_result(held)
        return held.headers

    def refused(self, headers: Mapping[str, str]) -> bool:
        """Forget the token of these headers, unless a newer one is held already. Another one may be accepted."""
        with self._lock:
            if self._held is not None and self._held.headers[self._header] == headers.get(self._header):
                self._held = None
        return True

    def secrets(self) -> tuple[str, ...]:
        """What it signs in with, and the last tokens."""
        with self._lock:
            return (*self._grant.secrets(), *self._given)

    def _hold(self, token: Token) -> _Held:
        # Without a life (RFC 6749 leaves it out where it is known otherwise) a token is good until it is refused.
        life = float("inf") if token.lasts is None else token.lasts - min(_MARGIN, token.lasts / 5)
        held = _Held({self._header: self._prefix + token.text}, time.monotonic() + life)
        with self._lock:
            self._given.append(token.text)
            self._held, self._coming = held, None
        return held

    def __repr__(self) -> str:
        return f"<Tokens {self._grant!r}>"
