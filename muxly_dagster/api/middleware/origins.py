"""Which web pages of other origins may post events (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol): none, unless it is said."""

import re

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from muxly_dagster.errors import ConfigurationError

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")
_EXPOSED = ["retry-after", "x-request-id", "idempotent-replayed"]
_SECONDS = 3600  # that a browser may remember the answer


def allowed_origins(text: str) -> tuple[str, ...]:
    """What MUXLY_ALLOW_ORIGINS says: `*`, or origins such as `https://shop.example.com`, with commas between. Raises ConfigurationError."""
    found = tuple(origin for part in text.split(",") if (origin := part.strip().rstrip("/").lower()))
    for origin in found:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ConfigurationError(
                f"MUXLY_ALLOW_ORIGINS has {origin!r}, which is no origin", do="write it like https://shop.example.com, or * for every page"
            )
    return found


def crossing(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """Let pages of these origins post. They sign in by a write key like everybody else: no cookie and no password of a browser's counts."""
    if not origins:
        return app
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=["POST"], allow_headers=["*"], expose_headers=_EXPOSED, max_age=_SECONDS
    )
