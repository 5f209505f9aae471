"""Google's own client of the Data API, signed in, with bounded retries and a count of the quota. Importing this loads the SDK."""

import collections
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import grpc  # type: ignore[import-untyped]
from google.analytics.data_v1beta import BetaAnalyticsDataClient
from google.analytics.data_v1beta.services.beta_analytics_data.transports import BetaAnalyticsDataGrpcTransport
from google.analytics.data_v1beta.types import BatchRunReportsRequest, CheckCompatibilityRequest, RunRealtimeReportRequest, RunReportRequest
from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions
from google.auth.transport.requests import Request

from muxly_dagster.auth import Auth
from muxly_dagster.connectors.ga4.quota import Quota
from muxly_dagster.connectors.ga4.refusals import SCOPE, as_muxly_error, passing, wait_asked
from muxly_dagster.errors import MuxlyError, RetryLater, SignInError
from muxly_dagster.google import SourceCredentials, google_credentials

MOST_IN_BATCH = 5
"""Reports in one batchRunReports."""

_TRIES = 4  # a project may cause 10 server errors an hour in a property, so few of them are risked
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0  # seconds; the wait doubles with each try
_TIMEOUT = 180.0  # seconds for one answer


class Client(AbstractContextManager["Client"]):
    """One property, asked over one connection. For one thread; close it after use.

    Every method raises SignInError, RetryLater, SourceError, ConfigurationError and its subclass InvalidRequest.
    """

    def __init__(self, auth: Auth, property_name: str, endpoint: str = "") -> None:
        self.property = property_name
        self.quota = Quota()
        self._credentials = google_credentials(auth, [SCOPE])
        self.account = str(getattr(self._credentials, "service_account_email", "") or "")
        host = endpoint.partition("://")[2] or endpoint or BetaAnalyticsDataClient.DEFAULT_ENDPOINT
        self._channel = _channel(host, plain=endpoint.startswith("http://"))
        signed = grpc.intercept_channel(self._channel, _SignIn(self._credentials, host))
        self._client = BetaAnalyticsDataClient(transport=BetaAnalyticsDataGrpcTransport(channel=signed))

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def run(self, request: RunReportRequest) -> Any:
        """One report: a RunReportResponse."""
        return self._counted(self._call(self._client.run_report, request))

    def run_all(self, requests: Sequence[RunReportRequest]) -> list[Any]:
        """Up to five reports in one request, answered in the same order."""
        if len(requests) == 1:
            return [self.run(requests[0])]
        answer = self._call(self._client.batch_run_reports, BatchRunReportsRequest(property=self.property, requests=requests))
        return [self._counted(report) for report in answer.reports]

    def run_realtime(self, request: RunRealtimeReportRequest) -> Any:
        """One report about now: a RunRealtimeReportResponse."""
        return self._counted(self._call(self._client.run_realtime_report, request))

    def metadata(self) -> Any:
        """Every dimension and metric of the property: a Metadata."""
        return self._call(self._client.get_metadata, {"name": f"{self.property}/metadata"})

    def compatibility(self, request: CheckCompatibilityRequest) -> Any:
        """What goes together: a CheckCompatibilityResponse."""
        return self._call(self._client.check_compatibility, request)

    def _counted(self, answer: Any) -> Any:
        self.quota.learn(answer.property_quota)
        return answer

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        """Ask, again a few times where the trouble may pass (the SDK does not), and once with a new token where the token ran out."""
        renewed = False
        for attempt in range(1, _TRIES + 1):
            try:
                return method(request, retry=None, timeout=_TIMEOUT)
            except exceptions.Unauthenticated as error:
                if renewed:
                    raise self._told(error) from error
                renewed = True
                self._renew()
            except exceptions.GoogleAPICallError as error:
                if attempt == _TRIES or not passing(error):
                    raise self._told(error) from error
                wait = wait_asked(error)
                if wait is not None and wait > _LONGEST_WAIT:
                    raise self._told(error) from error
                time.sleep(random.uniform(0.5, 1) * min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (attempt - 1)) if wait is None else wait)
            except auth_exceptions.GoogleAuthError as error:
                raise signed_out(error, self.property) from error
        raise RetryLater("Google Analytics cannot answer now", do="run it again later", where=self.property)

    def _renew(self) -> None:
        try:
            self._credentials.refresh(Request())
        except auth_exceptions.GoogleAuthError as error:
            raise signed_out(error, self.property) from error

    def _told(self, error: exceptions.GoogleAPICallError) -> MuxlyError:
        return as_muxly_error(error, where=self.property, account=self.account)


def signed_out(error: auth_exceptions.GoogleAuthError, where: str) -> MuxlyError:
    """Why Google gives no access token."""
    said = str(error.args[0] if error.args else error).strip().rstrip(".")
    if error.retryable or isinstance(error, auth_exceptions.TransportError):
        return RetryLater(f"Google's sign-in cannot be reached: {said}", do="run it again later", where=where)
    return SignInError(
        f"Google gives no access token: {said}",
        do="check `auth`: the key may be deleted, the refresh token withdrawn, or this machine's clock wrong",
        where=where,
    )


_CallDetails = collections.namedtuple("_CallDetails", ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression"))


class _SignIn(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Adds the access token to every request.

    gRPC's own plugin for it hides why there is no token (it says UNAVAILABLE, for ever), and refuses to work without TLS, which the
    tests go without. It stands behind the SDK's interceptor that logs requests, so the token is in no log.
    """

    def __init__(self, credentials: Any, host: str) -> None:
        self._credentials, self._host = credentials, host

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        headers: dict[str, str] = {}
        if isinstance(self._credentials, SourceCredentials):
            self._credentials.before_request(None, "POST", f"https://{self._host}{details.method}", headers)
        else:
            # `before_request` would also ask IAM where the account may be used, in a thread that outlives the pull.
            if not self._credentials.valid:
                self._credentials.refresh(Request())
            self._credentials.apply(headers)
        metadata = [*(details.metadata or ()), *((name.lower(), value) for name, value in headers.items())]
        kept = {name: getattr(details, name, None) for name in _CallDetails._fields}
        return continuation(_CallDetails(**kept | {"metadata": metadata}), request)


def _channel(host: str, *, plain: bool) -> Any:
    """A channel with TLS; without it for this machine alone. An answer of 250,000 rows is larger than gRPC's usual 4 MB."""
    options: list[tuple[str, Any]] = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    if plain:
        return grpc.insecure_channel(host, [*options, ("grpc.enable_http_proxy", 0)])
    return grpc.secure_channel(host if ":" in host else f"{host}:443", grpc.ssl_channel_credentials(), options)
