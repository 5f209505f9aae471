"""The address that a Prometheus writes to (remote write 1.0 and 2.0).

It sends again what is answered 429 or 5xx, and drops what is answered otherwise, with the first line of the answer in its log. Sources:
prometheus.io/docs/specs/prw/remote_write_spec and .../remote_write_spec_2_0.
"""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from muxly_dagster.api.problems import ApiError
from muxly_dagster.api.senders.speaking import refusals, route_that_tells
from muxly_dagster.api.senders.taking import PARAMETERS, SECURITY, take, told
from muxly_dagster.collecting import Gathered, UnknownType, remote_write
from muxly_dagster.collecting.limits import Limits

_STREAM = "prometheus"
_BINARY = {"schema": {"type": "string", "format": "binary"}, "example": ""}


def _tell(request: Request, status: int, text: str) -> Response:
    return Response(text + "\n", status, _counts(request, None), "text/plain")


router = APIRouter(tags=["Collect"], route_class=route_that_tells(_tell))


@router.post("/api/v1/write", include_in_schema=False, status_code=204)
@router.post(
    "/v1/prometheus/write",
    operation_id="collect_prometheus",
    summary="Post samples by Prometheus remote write",
    status_code=204,
    response_class=Response,
    openapi_extra={
        "parameters": PARAMETERS,
        "requestBody": {"required": True, "content": {"application/x-protobuf": _BINARY}},
        "security": SECURITY,
    },
    responses={
        **refusals({"text/plain": {"schema": {"type": "string"}, "example": "1 of 4 samples were rejected: sample 3 has no name"}}),
        204: {"description": "Every sample is durable. Version 2.0 is told how many there were, in headers."},
    },
)
async def write(request: Request) -> Response:
    """Take what a Prometheus writes, compressed with snappy: one event for each sample, native histogram and exemplar, into the stream
    `prometheus`.

    What cannot be read is named in an answer with status 400; the rest is stored all the same. `/api/v1/write` is the same.
    """
    written: list[remote_write.Written] = []

    def read(body: bytes, limits: Limits) -> Gathered:
        written.append(remote_write.read(body, request.headers.get("content-type", ""), _STREAM, limits))
        return written[-1].gathered

    gathered, _ = await take(_as_it_came(request), _STREAM, read)
    if gathered.rejected:
        text = told(gathered.rejected, len(gathered.lines) + len(gathered.rejected), "samples", item="sample")
        return Response(text + "\n", 400, _counts(request, written[-1]), "text/plain")
    return Response(status_code=204, headers=_counts(request, written[-1]))


def _as_it_came(request: Request) -> Request:
    """The request without its Content-Encoding: the reader undoes snappy itself. Raises ApiError (415) for another one."""
    encoding = request.headers.get("content-encoding", "snappy").strip().lower()
    if encoding != "snappy":
        raise ApiError(415, "Unsupported media type", f"remote write is compressed with snappy, not {encoding[:40]}")
    headers = [each for each in request.scope["headers"] if each[0] != b"content-encoding"]
    return Request({**request.scope, "headers": headers}, request.receive)


def _counts(request: Request, written: remote_write.Written | None) -> dict[str, str]:
    """How much was written, which every answer of version 2.0 says."""
    try:
        version = remote_write.version_of(request.headers.get("content-type", ""))
    except UnknownType:
        return {}
    if version == "1.0":
        return {}
    return written.counts() if written is not None else remote_write.Written("2.0", Gathered(_STREAM), ()).counts()
