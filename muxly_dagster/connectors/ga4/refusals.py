"""What Google's refusals mean, in words that say what to do next."""

from typing import Any

from google.api_core import exceptions
from google.rpc import error_details_pb2

from muxly_dagster.connectors.ga4.quota import returns, seconds_until_full
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError, SourceError

SCOPE = "https://www.googleapis.com/auth/analytics.readonly"
_PASSING = (
    exceptions.ServiceUnavailable,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.Unknown,
    exceptions.Aborted,
    exceptions.Cancelled,
)


class InvalidRequest(ConfigurationError):
    """Google does not understand a request (INVALID_ARGUMENT): a name it does not know, fields that do not go together, a wrong filter.

    `said` is what it answered.
    """

    def __init__(self, said: str, *, where: str) -> None:
        super().__init__(f"Google does not take this report: {said}", do="correct the pull; `muxly check` says more", where=where)
        self.said = said


class QuotaSpent(RetryLater):
    """A budget of the property is used up, or down to its floor."""


def passing(error: exceptions.GoogleAPICallError) -> bool:
    """Whether the same request may work in a moment: the server is in trouble, or too many requests are under way at once."""
    return isinstance(error, _PASSING) or (isinstance(error, exceptions.ResourceExhausted) and not _spent(error))


def wait_asked(error: exceptions.GoogleAPICallError) -> float | None:
    """The seconds the server asks to wait (google.rpc.RetryInfo); None where it says nothing."""
    for detail in error.details:
        if isinstance(detail, error_details_pb2.RetryInfo):
            return float(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9)
    return None


def as_muxly_error(error: exceptions.GoogleAPICallError, *, where: str, account: str) -> MuxlyError:
    """The refusal as one of Muxly's errors. `where` names the property, `account` who is signed in (no secret)."""
    said = str(error.message).strip().rstrip(".")
    who = account or "the account that is signed in"
    match error:
        case exceptions.Unauthenticated() | exceptions.Unauthorized():
            return SignInError(
                f"Google refuses the access token: {said}",
                do="check `auth`: make a new key for the service account, or sign in again for a new refresh token",
                where=where,
            )
        case exceptions.Forbidden():
            return _forbidden(error, said, who, where)
        case exceptions.NotFound():
            return ConfigurationError(
                f"there is no such property: {said}",
                do="set `property` to the number under Admin > Property details, not the measurement id (G-...)",
                where=where,
            )
        case exceptions.InvalidArgument():
            return InvalidRequest(said, where=where)
        case exceptions.ResourceExhausted() if window := _spent(error):
            after = seconds_until_full("day" if window == "day" else "hour")
            return QuotaSpent(f"the property's quota is used up: {said}", do=f"run it again {returns(after)}", where=where, after=after)
    if passing(error):
        return RetryLater(f"Google Analytics cannot answer now: {said}", do="run it again later", where=where, after=wait_asked(error))
    return SourceError(f"Google Analytics answered with an error: {said} ({type(error).__name__})", do="run it again later", where=where)


def _spent(error: exceptions.GoogleAPICallError) -> str:
    """The window of the budget that is used up: "day" or "hour"; empty where a limit of requests at once was met."""
    said = str(error.message).lower()
    return next((window for window in ("day", "hour") if f"per {window}" in said), "hour" if "token" in said else "")


def _forbidden(error: exceptions.GoogleAPICallError, said: str, who: str, where: str) -> MuxlyError:
    reason, details = _info(error)
    if reason == "ACCESS_TOKEN_SCOPE_INSUFFICIENT" or "authentication scopes" in said:
        return SignInError(
            f"the access token lacks the scope {SCOPE}: {said}",
            do=f"sign in again and allow {SCOPE}; for a service account, put it under `auth.scopes` or leave `scopes` away",
            where=where,
        )
    if reason == "SERVICE_DISABLED" or "has not been used in project" in said:
        page = details.get("activationUrl", "https://console.cloud.google.com/apis/library/analyticsdata.googleapis.com")
        return SignInError(
            f"the Google Analytics Data API is not enabled in the Google Cloud project: {said}",
            do=f"enable it at {page}, wait a minute, and run it again",
            where=where,
        )
    return SignInError(
        f"{who} may not read this property: {said}",
        do=f"give {who} the role Viewer under Admin > Property access management, and check `property`",
        where=where,
    )


def _info(error: exceptions.GoogleAPICallError) -> tuple[str, dict[str, Any]]:
    for detail in error.details:
        if isinstance(detail, error_details_pb2.ErrorInfo):
            return detail.reason, dict(detail.metadata)
    return "", {}
