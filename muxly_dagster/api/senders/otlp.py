"""OpenTelemetry's protocol over HTTP (OTLP/HTTP), as protobuf or JSON.

Answers and errors are as opentelemetry.io/docs/specs/otlp/#otlphttp-response has them: exporters send again what is answered with 429 or
503, after `Retry-After`, and nothing else.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from muxly_dagster.api.senders.speaking import refusals, route_that_tells
from muxly_dagster.api.senders.taking import PARAMETERS, SECURITY, take, told
from muxly_dagster.collecting import otlp

_ITEMS: dict[otlp.Signal, str] = {"metrics": "data points", "logs": "log records", "traces": "spans"}
_EXAMPLE = {
    "resourceLogs": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
            "scopeLogs": [{"logRecords": [{"timeUnixNano": "1700000000000000000", "body": {"stringValue": "paid"}}]}],
        }
    ]
}
_BINARY = {"schema": {"type": "string", "format": "binary"}, "example": ""}
_REFUSED = {"code": 5, "message": "no pull of app reads the stream otlp_logs; add it to muxly.yaml, under `sources: app: pulls:`"}
_CONTENT: dict[str, Any] = {
    otlp.PROTOBUF: _BINARY,
    otlp.JSON: {"schema": {"type": "object"}, "example": _EXAMPLE},
}
_PARTLY = {"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "1 of 10 log records were rejected: item 3 ..."}}


def _tell(request: Request, status: int, text: str) -> Response:
    as_json = _is_json(request)
    return Response(otlp.error(status, text, as_json=as_json), status, media_type=otlp.JSON if as_json else otlp.PROTOBUF)


router = APIRouter(tags=["Collect"], route_class=route_that_tells(_tell))


@router.post(
    "/v1/otlp/v1/{signal}",
    operation_id="collect_otlp",
    summary="Post metrics, logs or traces of OpenTelemetry",
    response_class=Response,
    openapi_extra={"parameters": PARAMETERS, "requestBody": {"required": True, "content": _CONTENT}, "security": SECURITY},
    responses={
        **refusals({otlp.JSON: {"schema": {"type": "object"}, "example": _REFUSED}, otlp.PROTOBUF: _BINARY}),
        200: {
            "description": "Everything is durable, or everything but what the answer says was rejected. In the encoding of the request.",
            "content": {
                otlp.JSON: {"schema": {"type": "object"}, "example": _PARTLY},
                otlp.PROTOBUF: _BINARY,
            },
        },
    },
)
async def export(request: Request, signal: Annotated[otlp.Signal, Path(description="What is exported.", examples=["logs"])]) -> Response:
    """Take what an exporter sends: one event for each data point, log record or span, in the stream `otlp_metrics`, `otlp_logs` or
    `otlp_traces`. Refusals are a `google.rpc.Status` in the encoding of the request.
    """
    content_type = request.headers.get("content-type", "")
    stream = f"otlp_{signal}"
    gathered, _ = await take(request, stream, lambda body, limits: otlp.read(body, signal, content_type, stream, limits))
    rejected = len(gathered.rejected)
    text = told(gathered.rejected, rejected + len(gathered.lines), _ITEMS[signal]) if rejected else ""
    as_json = _is_json(request)
    content = otlp.answer(signal, rejected, text, as_json=as_json)
    return Response(content, media_type=otlp.JSON if as_json else otlp.PROTOBUF)


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == otlp.JSON
