"""InfluxDB's addresses for line protocol, of versions 2 and 1 of its API, as Telegraf and its client libraries use them.

Answers and errors are as docs.influxdata.com/influxdb/v2/api/v2/#operation/PostWrite has them. Telegraf drops what is answered 400 or 404
and logs the message, keeps what is answered 401, 403, 429 or 503, and sends less at a time after 413.
"""

import time
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from muxly_dagster.api.problems import ApiError
from muxly_dagster.api.senders.speaking import refusals, route_that_tells
from muxly_dagster.api.senders.taking import PARAMETERS, SECURITY, take, told
from muxly_dagster.collecting import influx

_STREAM = "influx"
_CODES = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    413: "request too large",
    415: "unprocessable entity",
    429: "too many requests",
    503: "unavailable",
}


def _tell(_request: Request, status: int, text: str) -> Response:
    # `error` is what clients of version 1 look for.
    return Response(
        orjson.dumps({"code": _CODES.get(status, "internal error"), "message": text, "error": text}), status, media_type="application/json"
    )


router = APIRouter(tags=["Collect"], route_class=route_that_tells(_tell))

_PRECISION: dict[str, Any] = {
    "name": "precision",
    "in": "query",
    "description": "The unit of the timestamps.",
    "schema": {"type": "string", "enum": ["ns", "us", "ms", "s", "n", "u", "m", "h"], "default": "ns"},
    "example": "ns",
}
_MESSAGE = "partial write: 1 of 10 lines were rejected: line 3 there are no fields"
_REFUSED = {"schema": {"type": "object"}, "example": {"code": "invalid", "message": _MESSAGE, "error": _MESSAGE}}
_LINES = "cpu,host=web-1 usage=0.5,cores=8i 1700000000000000000\n"
_EXTRA: dict[str, Any] = {
    "parameters": [_PRECISION, *PARAMETERS],
    "requestBody": {"required": True, "content": {"text/plain": {"schema": {"type": "string"}, "example": _LINES}}},
    "security": SECURITY,
}


@router.post("/write", include_in_schema=False, status_code=204)
@router.post(
    "/api/v2/write",
    operation_id="collect_influx",
    summary="Post lines of Influx line protocol",
    status_code=204,
    response_class=Response,
    openapi_extra=_EXTRA,
    responses={**refusals({"application/json": _REFUSED}), 204: {"description": "Every line is durable."}},
)
async def write(request: Request) -> Response:
    """Take lines as Telegraf sends them, one event each, into the stream `influx`. Bucket and organization may be anything.

    Lines that cannot be read are named in an answer with status 400; the others are stored all the same. `/write` is the same for
    clients of version 1.
    """
    precision = request.query_params.get("precision", "")
    now = time.time_ns()
    gathered, _ = await take(request, _STREAM, lambda body, limits: influx.read(body, _STREAM, precision, now, limits))
    if gathered.rejected:
        count = len(gathered.lines) + len(gathered.rejected)
        raise ApiError(400, "Partial write", "partial write: " + told(gathered.rejected, count, "lines", item="line", first=1))
    return Response(status_code=204)
