"""What the protocols share: whose events they are, and the way from a body to the inbox."""

from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request

from muxly_dagster.api.collecting.accepting import Accepted
from muxly_dagster.api.guard import Sender, writer
from muxly_dagster.api.problems import ApiError
from muxly_dagster.api.service import service_of
from muxly_dagster.collecting import Gathered, Rejected
from muxly_dagster.collecting.limits import Limits

PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "source",
        "in": "query",
        "description": "The source that the events belong to, where no write key says it and several sources read them.",
        "schema": {"type": "string", "maxLength": 255},
        "example": "telemetry",
    },
    {
        "name": "X-Muxly-Source",
        "in": "header",
        "description": "The same, for senders that can add headers only.",
        "schema": {"type": "string", "maxLength": 255},
        "example": "telemetry",
    },
]
SECURITY: list[dict[str, list[str]]] = [{"write_key": []}, {"admin": []}]

HEAVIER = 4  # as much longer than plain JSON of the same size these forms take to be read, or more

_SAID = 5  # reasons in a text


async def take(request: Request, stream: str, read: Callable[[bytes, Limits], Gathered]) -> tuple[Gathered, Accepted]:
    """Take the events that a reader finds in the body; they are durable when this returns. Raises ApiError, RetryLater."""
    collecting = service_of(request).collecting
    sender = await writer(request)
    source = await source_of(request, sender, [stream])
    sender.check(source, stream)
    await collecting.taking(source, stream)
    with collecting.hold() as hold:
        body = await collecting.body(request, hold)
        gathered = await collecting.read(len(body) * HEAVIER, lambda: read(body, collecting.limits))
        accepted = await collecting.accept(source, [gathered], body=body, place=stream)
    return gathered, accepted


async def source_of(request: Request, sender: Sender, streams: Sequence[str]) -> str:
    """The source that a request names, else that of its key, else the only one that reads any of these streams, or the only one there is.

    Raises ApiError (400) where there are several, (404) where there is none.
    """
    named = request.query_params.get("source", "") or request.headers.get("x-muxly-source", "")
    if named or sender.key is not None:
        return named or (sender.key.source if sender.key is not None else "")
    known = await service_of(request).collecting.known()
    sources = known.sources()
    reading = list(dict.fromkeys(source for source, stream in known.streams if stream in streams)) or sources
    if len(reading) == 1:
        return reading[0]
    if not reading:
        pulls = ", ".join(streams)
        raise ApiError(
            404,
            "Nobody collects",
            "no source of the project collects events",
            do=f"add one to muxly.yaml: `sources: {{telemetry: {{connector: collector, pulls: [{pulls}]}}}}`",
        )
    raise ApiError(
        400,
        "Which source?",
        f"more than one source collects: {', '.join(reading)}",
        do="send a write key of the source, or add ?source=NAME to the address, or the header X-Muxly-Source: NAME",
    )


def told(rejected: Sequence[Rejected], count: int, what: str, *, item: str = "item", first: int = 0) -> str:
    """Which items of a request were rejected, and why, in one line: `item` is what one is called, `first` its first number."""
    reasons = [f"{item} {each.index + first} {each.reason}" for each in sorted(rejected, key=lambda each: each.index)[:_SAID]]
    more = f"; and {len(rejected) - _SAID} more" if len(rejected) > _SAID else ""
    return f"{len(rejected)} of {count} {what} were rejected: {'; '.join(reasons)}{more}"
