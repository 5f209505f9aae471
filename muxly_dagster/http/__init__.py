"""The one HTTP client: timeouts, retries, rate budgets, redirects and redaction for every request Muxly makes."""

from muxly_dagster.http.client import Http
from muxly_dagster.http.downloading import Download, Downloaded, FileTooLarge
from muxly_dagster.http.limits import Limit
from muxly_dagster.http.messages import Headers, Request, Response
from muxly_dagster.http.outcomes import Cause, Judge, Verdict
from muxly_dagster.http.redaction import Redaction
from muxly_dagster.http.retries import Retries, retry_after
from muxly_dagster.http.tokens import sign_in
from muxly_dagster.http.transport import Timeouts

__all__ = [
    "Cause",
    "Download",
    "Downloaded",
    "FileTooLarge",
    "Headers",
    "Http",
    "Judge",
    "Limit",
    "Redaction",
    "Request",
    "Response",
    "Retries",
    "Timeouts",
    "Verdict",
    "retry_after",
    "sign_in",
]
