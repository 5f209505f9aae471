"""Segment's HTTP API, as its libraries call it (segment.com/docs/connections/sources/catalog/libraries/server/http-api).

Libraries keep what is answered 429 or 5xx, and report what is answered 400 or 404 to their error callback, with `code` and `message`.
"""

import datetime as dt
from typing import Any, get_args

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from muxly_dagster.api.guard import Sender, writer
from muxly_dagster.api.problems import ApiError
from muxly_dagster.api.senders.speaking import refusals, route_that_tells
from muxly_dagster.api.senders.taking import HEAVIER, PARAMETERS, SECURITY, source_of, told
from muxly_dagster.api.service import service_of
from muxly_dagster.collecting import Gathered, Rejected, segment

_CODES = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    413: "too_large",
    415: "unsupported",
    429: "rate_limited",
}
_UNSIGNED = 1 << 20
"""Bytes of a body that holds its write key itself: twice as much as Segment's libraries send at a time."""

_SUCCESS = b'{"success":true}'
_MANY = ("batch", "import")


def _tell(_request: Request, status: int, text: str) -> Response:
    said = {"success": False, "code": _CODES.get(status, "unavailable"), "message": text}
    return Response(orjson.dumps(said), status, media_type="application/json")


router = APIRouter(tags=["Collect"], route_class=route_that_tells(_tell))


async def call(request: Request) -> Response:
    """Take what a library of Segment's sends: one event a message, in the stream of its type. The write key is the user name of basic
    authentication, or stands in the body as `writeKey`.

    Messages that are none, or of a type that no pull reads, are named in an answer with status 400; the others are stored all the same.
    """
    called: segment.Call = request.scope["path"].rpartition("/")[2]
    received_at = dt.datetime.now(dt.UTC)
    collecting = service_of(request).collecting
    signed = "authorization" in request.headers or "x-write-key" in request.headers
    sender = await writer(request) if signed else None
    with collecting.hold(proven=signed) as hold:
        body = await collecting.body(request, hold, 0 if signed else _UNSIGNED)
        if sender is None:
            sender = await writer(request, segment.write_key(body))
        found, rejected = await collecting.read(len(body) * HEAVIER, lambda: segment.read(body, called, received_at, collecting.limits))
        source = await source_of(request, sender, segment.TYPES if called in _MANY else [called])
        taken = await _taken(request, sender, source, found, rejected)
        if taken:
            await collecting.accept(source, taken)
    rejected += [each for part in taken for each in part.rejected]
    if rejected:
        count = len(rejected) + sum(len(part.lines) for part in taken)
        raise ApiError(400, "Partly rejected", told(rejected, count, "messages", item="message"))
    return Response(_SUCCESS, media_type="application/json")


async def _taken(request: Request, sender: Sender, source: str, found: list[Gathered], rejected: list[Rejected]) -> list[Gathered]:
    """The messages that may be stored; others are rejected. Raises ApiError where they all are for the same reason."""
    collecting = service_of(request).collecting
    taken: list[Gathered] = []
    refusals: list[ApiError] = []
    for each in found:
        try:
            sender.check(source, each.stream)
            await collecting.taking(source, each.stream)
            taken.append(each)
        except ApiError as error:
            refusals.append(error)
            why = f"is of the type {each.stream}: {error.problem.detail}; {error.problem.do}"
            rejected += [Rejected(index, why) for index in each.indexes]
    if refusals and not taken:
        raise refusals[0]
    return taken


# ---- the addresses -----------------------------------------------------------------------------------------------------

_MESSAGE = {"userId": "u-1", "event": "Order paid", "properties": {"total": 19.9}, "messageId": "m-1", "timestamp": "2026-01-02T03:04:05Z"}
_EXAMPLES: dict[str, Any] = {
    "track": _MESSAGE,
    "identify": {"userId": "u-1", "traits": {"email": "ada@example.com"}, "messageId": "m-2"},
    "page": {"anonymousId": "a-1", "name": "Pricing", "properties": {"path": "/pricing"}, "messageId": "m-3"},
    "screen": {"anonymousId": "a-1", "name": "Basket", "messageId": "m-4"},
    "group": {"userId": "u-1", "groupId": "g-1", "traits": {"name": "Initech"}, "messageId": "m-5"},
    "alias": {"previousId": "a-1", "userId": "u-1", "messageId": "m-6"},
    "batch": {"batch": [{"type": "track"} | _MESSAGE], "sentAt": "2026-01-02T03:04:06Z"},
    "import": {"batch": [{"type": "track"} | _MESSAGE]},
}
_SAID = {"schema": {"type": "object", "properties": {"success": {"type": "boolean"}}}, "example": {"success": True}}
_REFUSED = {
    "schema": {"type": "object"},
    "example": {"success": False, "code": "not_found", "message": "no pull of web reads the stream screen; add it to muxly.yaml"},
}

for _call in get_args(segment.Call):
    router.add_api_route(
        f"/v1/{_call}",
        call,
        methods=["POST"],
        operation_id=f"collect_{_call}",
        summary=f"Post {'messages' if _call in _MANY else 'a message'} as Segment's {_call}",
        response_class=Response,
        openapi_extra={
            "parameters": PARAMETERS,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"type": "object"}, "example": _EXAMPLES[_call]}},
            },
            "security": SECURITY,
        },
        responses={
            **refusals({"application/json": _REFUSED}),
            200: {"description": "Every message is durable.", "content": {"application/json": _SAID}},
        },
    )
