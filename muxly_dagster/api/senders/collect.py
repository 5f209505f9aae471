"""What services post: events, one or many, into a source's stream."""

from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from muxly_dagster.api.collecting import receipts
from muxly_dagster.api.collecting.accepting import Accepted, Collecting
from muxly_dagster.api.guard import shown_key, shown_token, writer
from muxly_dagster.api.problems import ApiError
from muxly_dagster.api.service import service_of
from muxly_dagster.collecting import Gathered, cloudevents, plain

router = APIRouter(tags=["Collect"])

PATH = "/v1/collect/{source}/{stream}"

REPLAYED = "idempotent-replayed"
"""The header that says that an answer is the one of an earlier request with the same Idempotency-Key."""

_LONGEST_WAIT = 300.0
_WAIT = 30.0
_LONGEST_KEY = 255

_EVENT = {"id": "s-1", "email": "ada@example.com", "plan": "pro"}
_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "source",
        "in": "path",
        "required": True,
        "description": "A source of the project with `connector: collector`.",
        "schema": {"type": "string", "maxLength": 255},
        "example": "app",
    },
    {
        "name": "stream",
        "in": "path",
        "required": True,
        "description": "A stream that a pull of it reads.",
        "schema": {"type": "string", "maxLength": 255},
        "example": "signups",
    },
    {
        "name": "wait",
        "in": "query",
        "description": "`stored`: answer once the events are in the lake.",
        "schema": {"type": "string", "enum": ["stored"]},
        "example": "stored",
    },
    {
        "name": "timeout",
        "in": "query",
        "description": "How many seconds to wait for that.",
        "schema": {"type": "number", "minimum": 0, "maximum": _LONGEST_WAIT, "default": _WAIT},
        "example": 10,
    },
    {
        "name": "ids",
        "in": "query",
        "description": "Whether to name the events' ids in the receipt.",
        "schema": {"type": "boolean", "default": False},
        "example": True,
    },
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A name for this request: sent again under it, it is answered as before, and nothing is stored twice.",
        "schema": {"type": "string", "minLength": 1, "maxLength": _LONGEST_KEY},
        "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
    },
]
_OBJECT = {"type": "object", "additionalProperties": True}
_CONTENT = {
    "application/json": {"schema": {"anyOf": [_OBJECT, {"type": "array", "items": _OBJECT}]}, "example": _EVENT},
    "application/x-ndjson": {"schema": {"type": "string"}, "example": '{"id": "s-1"}\n{"id": "s-2"}\n'},
    cloudevents.STRUCTURED: {
        "schema": _OBJECT,
        "example": {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid", "data": {"total": 9.5}},
    },
    cloudevents.BATCH: {
        "schema": {"type": "array", "items": _OBJECT},
        "example": [{"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid", "data": {"total": 9.5}}],
    },
}
_SAID = {
    "application/json": {
        "schema": {"$ref": "#/components/schemas/CollectReceipt"},
        "example": {"accepted": 1, "duplicate": 0, "rejected": 0, "quarantined": 0, "stored": True},
    }
}


@router.post(
    PATH,
    operation_id="collect",
    summary="Post events into a stream",
    status_code=202,
    response_model=receipts.CollectReceipt,
    openapi_extra={
        "parameters": _PARAMETERS,
        "requestBody": {"required": True, "content": _CONTENT},
    },
    dependencies=[Depends(shown_key), Depends(shown_token)],
    responses={200: {"description": "The events are in the lake, as was asked for with `wait=stored`.", "content": _SAID}},
)
async def collect(request: Request) -> Response:
    """Take events, and answer once they are durable: one JSON object, an array of them, one a line, or CloudEvents; compressed or not.

    An event whose id was accepted before in this stream is a duplicate. Items that are no events are rejected one by one, with the
    reasons in the receipt; where nothing at all can be taken the answer is 400.
    """
    source, stream = request.path_params["source"], request.path_params["stream"]
    collecting = service_of(request).collecting
    query = request.query_params if request.scope["query_string"] else {}
    timeout = _timeout(query.get("wait"), query.get("timeout")) if query else None
    (await writer(request)).check(source, stream)
    taking = await collecting.taking(source, stream)
    key = idempotency_key(request)
    with collecting.hold() as hold:
        body = await collecting.body(request, hold)
        kind = request.headers.get("content-type", "")

        def read() -> Gathered:
            if cloudevents.speaks(kind, request.headers):
                return cloudevents.read(body, kind, request.headers, stream, collecting.limits)
            return plain.read(body, kind, stream, taking.id, collecting.limits.items)

        gathered = await collecting.read(len(body), read)
        accepted = await collecting.accept(
            source, [gathered], body=body if key else b"", key=key, place=stream, ids=query.get("ids", "").lower() in ("true", "1")
        )
    return await answer(collecting, accepted, timeout)


async def answer(collecting: Collecting, accepted: Accepted, timeout: float | None = None) -> Response:
    """A receipt as an answer: 202, or with a timeout, if all is in the lake by then, 200."""
    status = 202
    if timeout is not None:
        upto = accepted.upto
        if not all(upto.values()):
            upto = {**await collecting.storing.upto(list(upto)), **{place: seq for place, seq in upto.items() if seq}}
        accepted.receipt["stored"] = await collecting.storing.stored(upto, timeout)
        status = 200 if accepted.receipt["stored"] else 202
    headers = {REPLAYED: "true"} if accepted.replayed else None
    return Response(receipts.to_json(accepted.receipt), status, headers, "application/json")


def idempotency_key(request: Request) -> str:
    """The Idempotency-Key of a request, in quotes or not (draft-ietf-httpapi-idempotency-key-header); "" without one.

    Raises ApiError (400) for one that is none.
    """
    said = request.headers.get("idempotency-key")
    if said is None:
        return ""
    key = said[1:-1] if len(said) > 1 and said[0] == said[-1] == '"' else said
    if not 0 < len(key) <= _LONGEST_KEY or not key.isprintable():
        raise ApiError(400, "The Idempotency-Key is not one", f"it has 1 to {_LONGEST_KEY} characters", do="a UUID is a good one")
    return key


def _timeout(wait: str | None, timeout: str | None) -> float | None:
    """For how long to wait, in seconds; None for not at all. Raises ApiError (400)."""
    if wait is None:
        return None
    if wait != "stored":
        raise ApiError(400, "Nothing to wait for", f"wait={wait[:100]} is not known", do="say wait=stored, or leave it out")
    try:
        seconds = float(timeout) if timeout is not None else _WAIT
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST_WAIT:
        raise ApiError(400, "The timeout is not one", f"it is a number of seconds from 0 to {_LONGEST_WAIT:g}")
    return seconds
