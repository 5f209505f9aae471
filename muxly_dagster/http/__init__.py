"""The one HTTP client: timeouts, retries, rate budgets, redirects and redaction for every request Muxly makes."""

from muxly_dagster.http.client import Http, Signer
from muxly_dagster.http.downloading import Download, Downloaded, FileTooLarge
from muxly_dagster.http.flow import Outcome, Source
from muxly_dagster.http.guard import AddressGuard
from muxly_dagster.http.limits import Limit
from muxly_dagster.http.messages import Headers, Request, Response
from muxly_dagster.http.outcomes import Cause, Judge, Verdict
from muxly_dagster.http.outgoing import Outgoing
from muxly_dagster.http.redaction import Redaction
from muxly_dagster.http.retries import Retries, retry_after
from muxly_dagster.http.tokens import sign_in
from muxly_dagster.http.wire import Timeouts

__all__ = [
    "AddressGuard",
    "Cause",
    "Download",
    "Downloaded",
    "FileTooLarge",
    "Headers",
    "Http",
    "Judge",
    "Limit",
    "Outcome",
    "Outgoing",
    "Redaction",
    "Request",
    "Response",
    "Retries",
    "Signer",
    "Source",
    "Timeouts",
    "Verdict",
    "retry_after",
    "sign_in",
]
