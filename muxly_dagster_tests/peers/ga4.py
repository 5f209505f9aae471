"""The Google Analytics Data API as a gRPC server of its own protobufs, with the token endpoint beside it.

It keeps facts (a day, some dimensions, some metrics) and makes reports of them: grouped by the dimensions asked for, ordered, paged.
"""

import base64
import datetime as dt
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs
from zoneinfo import ZoneInfo

import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.analytics.data_v1beta import types
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from muxly_dagster.connector import Connector
from muxly_dagster.connectors.ga4 import Ga4

DIMENSIONS: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(("date", "country", "city", "deviceCategory", "eventName", "pagePath", "itemName", "customEvent:plan"), ()),
    "sessionDefaultChannelGroup": ("sessionDefaultChannelGrouping",),
    "trafficKind": ("trafficType",),  # renamed later than anything Muxly knows of by itself
}
METRICS = {
    "activeUsers": types.MetricType.TYPE_INTEGER,
    "sessions": types.MetricType.TYPE_INTEGER,
    "keyEvents": types.MetricType.TYPE_INTEGER,
    "bounceRate": types.MetricType.TYPE_FLOAT,
    "totalRevenue": types.MetricType.TYPE_CURRENCY,
    "itemsViewed": types.MetricType.TYPE_INTEGER,
}
APART = ({"itemName"}, {"sessions", "bounceRate"})
"""Fields of the first set do not go together with those of the second."""

Refusal = tuple[grpc.StatusCode, str, Sequence[Any]]
TOKENS_SPENT = "Exhausted property tokens for a project per hour. These quota tokens will return in under an hour."


@cache
def private_key() -> str:
    """The service account's key, made once: that takes a while."""
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


class Analytics:
    """One property. As a `Provider`, its records are pages of yesterday, whose text stands for a number of users."""

    def __init__(self, time_zone: str = "Pacific/Auckland") -> None:
        self.time_zone = time_zone
        self.facts: list[dict[str, Any]] = []
        self.seen: list[Any] = []  # every request, as it came
        self.refusals: list[Refusal] = []  # for the next requests for records
        self.sampled_beyond = self.other_row_beyond = 10_000  # days in one report
        self.flags: dict[str, Any] = {}  # more fields of the answers' metadata
        self.left = {"tokens_per_day": 190_000, "tokens_per_hour": 39_000, "tokens_per_project_per_hour": 13_000}
        self.cost = 1
        self.most_realtime_rows = 250_000
        self.on_report: Callable[[], None] = lambda: None
        self.token_requests: list[dict[str, str]] = []
        self.secrets: list[str] = [private_key(), "the-refresh-token", "the-client-secret"]
        self.pull: Mapping[str, Any] = {"stream": "report", "dimensions": ["pagePath"], "metrics": ["activeUsers"], "page_rows": 2}
        self._texts: list[str] = [""]
        self._broken_after: int | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        methods = {
            "RunReport": (types.RunReportRequest, self._run_report),
            "BatchRunReports": (types.BatchRunReportsRequest, self._batch),
            "RunRealtimeReport": (types.RunRealtimeReportRequest, self._realtime),
            "GetMetadata": (types.GetMetadataRequest, self._metadata),
            "CheckCompatibility": (types.CheckCompatibilityRequest, self._compatibility),
        }
        handlers = {name: grpc.unary_unary_rpc_method_handler(self._handler(*method)) for name, method in methods.items()}
        service = "google.analytics.data.v1beta.BetaAnalyticsData"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        self._tokens = _TokenEndpoint(self)
        self.token_url = f"http://127.0.0.1:{self._tokens.server_port}/token"
        threading.Thread(target=self._tokens.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
        self._tokens.shutdown()
        self._tokens.server_close()

    # ---- as a Provider

    def connector(self, *, wrong: bool = False, **settings: Any) -> Connector:
        key = self.key("nobody@example.iam.gserviceaccount.com" if wrong else "muxly@example.iam.gserviceaccount.com")
        auth = {"kind": "service_account", "key": key}
        return Ga4.model_validate({"property": 1, "auth": auth, "endpoint": self.endpoint, **settings})

    def put(self, *numbers: int, text: str = "") -> None:
        if text not in self._texts:
            self._texts.append(text)
        for number in numbers:
            self.delete(number)
            self.fact(self.today() - dt.timedelta(days=1), pagePath=f"/{number}", activeUsers=self._texts.index(text))

    def delete(self, number: int) -> None:
        self.facts = [fact for fact in self.facts if fact["pagePath"] != f"/{number}"]

    def number(self, row: Mapping[str, Any]) -> int:
        return int(row["pagePath"].removeprefix("/"))

    def text(self, row: Mapping[str, Any]) -> str:
        return self._texts[row["activeUsers"]]

    def drift(self) -> None:
        raise NotImplementedError("a report has the fields that were asked for")

    def fail_once(self, status: int) -> None:
        if status == 401:
            self.refusals.append((grpc.StatusCode.UNAUTHENTICATED, "Request had invalid authentication credentials.", ()))
        else:
            self.refusals.append((grpc.StatusCode.RESOURCE_EXHAUSTED, "Exhausted concurrent requests quota.", (at_once(),)))

    def break_after(self, requests: int) -> None:
        self._broken_after = requests

    def mend(self) -> None:
        self._broken_after = None

    def expire(self) -> None:
        raise NotImplementedError("a report has no token of changes")

    # ---- the property

    def key(self, email: str) -> str:
        """The key file of a service account."""
        return json.dumps({"type": "service_account", "client_email": email, "private_key": private_key(), "token_uri": self.token_url})

    def today(self) -> dt.date:
        return dt.datetime.now(ZoneInfo(self.time_zone)).date()

    def fact(self, day: dt.date, **values: Any) -> None:
        self.facts.append({"date": day.strftime("%Y%m%d"), **{name.replace("__", ":"): value for name, value in values.items()}})

    def requests(self, kind: type) -> list[Any]:
        """The requests of a kind that came so far."""
        return [request for request in self.seen if isinstance(request, kind)]

    def new_token(self) -> str:
        token = f"access-token-{len(self.secrets)}"
        self.secrets.append(token)
        return token

    # ---- the methods

    def _handler(self, kind: Any, answer: Callable[[Any, Any], Any]) -> Callable[[bytes, Any], bytes]:
        def handle(raw: bytes, context: Any) -> bytes:
            request = kind.deserialize(raw)
            signed = dict(context.invocation_metadata()).get("authorization", "").removeprefix("Bearer ")
            with self._lock:
                self.seen.append(request)
                if signed not in self.secrets[3:]:
                    refuse(context, grpc.StatusCode.UNAUTHENTICATED, "Request had invalid authentication credentials.")
                if not isinstance(request, types.GetMetadataRequest | types.CheckCompatibilityRequest):
                    self._refuse(context)
                answered = answer(request, context)
                return bytes(type(answered).serialize(answered))

        return handle

    def _refuse(self, context: Any) -> None:
        if self.refusals:
            refuse(context, *self.refusals.pop(0))
        if self._broken_after is not None:
            if self._broken_after == 0:
                refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, TOKENS_SPENT)
            self._broken_after -= 1

    def _batch(self, request: Any, context: Any) -> Any:
        if len(request.requests) > 5:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "At most 5 requests per batch.")
        return types.BatchRunReportsResponse(reports=[self._run_report(each, context) for each in request.requests])

    def _run_report(self, request: Any, context: Any) -> Any:
        self._check(request, context, [d.name for d in request.dimensions], [m.name for m in request.metrics])
        self.on_report()
        (between,) = request.date_ranges
        first, last = self._day(between.start_date), self._day(between.end_date)
        if first > last:
            text = f"Invalid dateRange: the end date {last} is before the start date {first}."
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, text)
        facts = [fact for fact in self.facts if first <= dt.datetime.strptime(fact["date"], "%Y%m%d").date() <= last]
        rows = _grouped(request, facts)
        answer = types.RunReportResponse(
            rows=rows[request.offset : request.offset + request.limit], row_count=len(rows), **_headers(request)
        )
        answer.metadata.time_zone, answer.metadata.currency_code = self.time_zone, request.currency_code or "NZD"
        days = (last - first).days + 1
        if days > self.sampled_beyond:
            answer.metadata.sampling_metadatas = [{"samples_read_count": 500_000, "sampling_space_size": 2_000_000}]
        answer.metadata.data_loss_from_other_row = days > self.other_row_beyond
        for name, value in self.flags.items():
            setattr(answer.metadata, name, value)
        answer.property_quota = self._quota(request)
        return answer

    def _realtime(self, request: Any, context: Any) -> Any:
        rows = _grouped(request, self.facts)
        answer = types.RunRealtimeReportResponse(
            rows=rows[: min(request.limit, self.most_realtime_rows)], row_count=len(rows), **_headers(request)
        )
        answer.property_quota = self._quota(request)
        return answer

    def _quota(self, request: Any) -> Any:
        if not request.return_property_quota:
            return types.PropertyQuota()
        self.left = {name: left - self.cost for name, left in self.left.items()}
        told = {name: {"consumed": self.cost, "remaining": left} for name, left in self.left.items()}
        return types.PropertyQuota(concurrent_requests={"consumed": 0, "remaining": 10}, **told)

    def _metadata(self, request: Any, _: Any) -> Any:
        old_metrics = {"keyEvents": ["conversions"]}
        return types.Metadata(
            name=request.name,
            dimensions=[{"api_name": name, "deprecated_api_names": old} for name, old in DIMENSIONS.items()],
            metrics=[
                {"api_name": name, "type_": kind, "deprecated_api_names": old_metrics.get(name, [])} for name, kind in METRICS.items()
            ],
        )

    def _compatibility(self, request: Any, context: Any) -> Any:
        dimensions, metrics = [d.name for d in request.dimensions], [m.name for m in request.metrics]
        self._check(request, context, dimensions, metrics)
        asked = {*dimensions, *metrics}
        one, other = APART

        def goes(name: str) -> Any:
            apart = (name in one and asked & other) or (name in other and asked & one)
            return types.Compatibility.INCOMPATIBLE if apart else types.Compatibility.COMPATIBLE

        return types.CheckCompatibilityResponse(
            dimension_compatibilities=[{"dimension_metadata": {"api_name": n}, "compatibility": goes(n)} for n in DIMENSIONS],
            metric_compatibilities=[{"metric_metadata": {"api_name": n}, "compatibility": goes(n)} for n in METRICS],
        )

    def _check(self, request: Any, context: Any, dimensions: list[str], metrics: list[str]) -> None:
        if request.property != "properties/1":
            text = "User does not have sufficient permissions for this property. To learn more about Property ID, see the documentation."
            refuse(context, grpc.StatusCode.PERMISSION_DENIED, text)
        for kind, names, known in (("dimension", dimensions, DIMENSIONS), ("metric", metrics, METRICS)):
            for name in names:
                if name not in known:
                    text = f"Field {name} is not a valid {kind}. For a list of valid dimensions and metrics, see the documentation. "
                    refuse(context, grpc.StatusCode.INVALID_ARGUMENT, text)
        if {*dimensions, *metrics} & APART[0] and {*dimensions, *metrics} & APART[1]:
            text = "Please remove itemName to make the request compatible. The request's dimensions & metrics are incompatible."
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, text)

    def _day(self, said: str) -> dt.date:
        return self.today() if said == "today" else dt.date.fromisoformat(said)


def refuse(context: Any, code: Any, text: str, details: Sequence[Any] = ()) -> None:
    """End a request as Google does: with a google.rpc.Status."""
    status = status_pb2.Status(code=code.value[0], message=text)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    context.abort_with_status(rpc_status.to_status(status))


def at_once() -> Any:
    """Asks to try again without a wait."""
    return error_details_pb2.RetryInfo(retry_delay=Duration(seconds=0))


def because(reason: str, **more: str) -> Any:
    """Says why a request was refused."""
    return error_details_pb2.ErrorInfo(reason=reason, domain="googleapis.com", metadata=more)


def _headers(request: Any) -> dict[str, Any]:
    return {
        "dimension_headers": [{"name": dimension.name} for dimension in request.dimensions],
        "metric_headers": [{"name": metric.name, "type_": METRICS[metric.name]} for metric in request.metrics],
    }


def _grouped(request: Any, facts: list[dict[str, Any]]) -> list[Any]:
    """The facts as rows: one for each combination of dimensions, with its metrics' sums (a text is given as it is)."""
    names, metrics = [d.name for d in request.dimensions], [m.name for m in request.metrics]
    wanted = request.dimension_filter.filter
    if wanted.field_name:
        facts = [fact for fact in facts if fact.get(wanted.field_name) == wanted.string_filter.value]
    sums: dict[tuple[str, ...], Counter[str] | dict[str, str]] = {}
    for fact in facts:
        row = sums.setdefault(tuple(fact.get(name, "(not set)") for name in names), Counter())
        for metric in metrics:
            value = fact.get(metric, 0)
            row[metric] = value if isinstance(value, str) else row[metric] + value
    above = request.metric_filter.filter
    if above.field_name:
        sums = {key: row for key, row in sums.items() if int(row[above.field_name]) > above.numeric_filter.value.int64_value}
    return [
        types.Row(dimension_values=[{"value": value} for value in key], metric_values=[{"value": str(row[m])} for m in metrics])
        for key, row in sorted(sums.items())
    ]


class _TokenEndpoint(ThreadingHTTPServer):
    """Gives access tokens to the one service account and the one user."""

    daemon_threads = True

    def __init__(self, analytics: Analytics) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                analytics.token_requests.append(form)
                if _may_sign_in(form):
                    self._answer(200, {"access_token": analytics.new_token(), "expires_in": 3600, "token_type": "Bearer"})
                else:
                    self._answer(400, {"error": "invalid_grant", "error_description": "Invalid grant: account not found"})

            def _answer(self, status: int, values: dict[str, Any]) -> None:
                content = json.dumps(values).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Nothing: a test's output is its own."""

        super().__init__(("127.0.0.1", 0), Handler)


def _may_sign_in(form: Mapping[str, str]) -> bool:
    if "assertion" in form:
        claims = form["assertion"].split(".")[1]
        account = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["iss"]
        return bool(account == "muxly@example.iam.gserviceaccount.com")
    return form.get("refresh_token") == "the-refresh-token"
