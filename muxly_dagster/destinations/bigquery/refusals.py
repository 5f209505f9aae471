"""What BigQuery refuses, sorted by what to do next: grant, correct, wait, or shelve a record.

Sources: BigQuery's page of error messages (`reason`), its pages of quotas and of load jobs, google-auth's exceptions.
"""

import re
from collections.abc import Iterator
from concurrent.futures import TimeoutError as JobTimeout
from contextlib import contextmanager
from typing import Any

from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater, SignInError
from muxly_dagster.http import Redaction

_PERMISSION = re.compile(r"\bbigquery\.[A-Za-z]+(?:\.[A-Za-z]+)+\b")
_ROLES = {
    "bigquery.jobs": "BigQuery Job User on the project that runs the jobs",
    "bigquery.tables": "BigQuery Data Editor on the dataset",
    "bigquery.datasets": "BigQuery Data Editor on the dataset",
}
_PASSING = {
    "backendError",
    "internalError",
    "jobBackendError",
    "jobInternalError",
    "jobRateLimitExceeded",
    "rateLimitExceeded",
    "quotaExceeded",
    "resourcesExceeded",
    "stopped",
    "tableUnavailable",
    "timeout",
}
_CONCURRENT = re.compile(
    r"due to concurrent (?:update|transaction|DML)|too many DML statements outstanding|aborted due to|in the streaming buffer", re.I
)
_NO_BILLING = re.compile(r"billing has not been enabled|not allowed in the free tier|sandbox", re.I)
_OF_THE_TABLE = re.compile(
    r"provided schema does not match|has changed (?:type|mode)|cannot add fields|unsupported field type|partitions? (?:produced|modified)"
    r"|no such field|too many partitions|does not match the target|schema mismatch",
    re.I,
)
_OF_A_RECORD = re.compile(
    r"error while reading data|required (?:field|column)|cannot be null|null value|out of range|overflow|bad \w+ value"
    r"|invalid (?:json|value)|failed to parse|syntax error while parsing|must match at most one source row|maximum length"
    r"|too large|exceeds? the maximum|nesting"
    r"|check constraint|could not (?:parse|convert)",
    re.I,
)
_ADDRESS = re.compile(r"^(?:\d{3} )?(?:GET|POST|PUT|PATCH|DELETE) https?://\S+?: ")
_NEXT_RUN = "nothing was lost: the next run goes on where this one stopped"


@contextmanager
def in_words(where: str = "") -> Iterator[None]:
    """Errors of Google's libraries within, as MuxlyErrors. `where` is a table or a dataset."""
    # Imported here since reading a project asks nothing of Google: these libraries take half a second.
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.resumable_media import DataCorruption, InvalidResponse
    from requests.exceptions import RequestException

    try:
        yield
    except (GoogleAPIError, GoogleAuthError, RequestException, InvalidResponse, DataCorruption, JobTimeout, ConnectionError) as error:
        # Without its cause: Google's errors hold the request.
        raise in_person(error, where) from None


def in_person(error: Exception, where: str = "") -> MuxlyError:
    """An error of Google's libraries as the MuxlyError that says what to do."""
    from google.api_core.exceptions import RetryError
    from google.auth.exceptions import RefreshError, TransportError
    from google.resumable_media import DataCorruption
    from requests.exceptions import RequestException

    if isinstance(error, RetryError) and isinstance(error.cause, Exception):
        return in_person(error.cause, where)
    if isinstance(error, JobTimeout):
        return RetryLater("the job at BigQuery takes longer than it is waited for", do=_NEXT_RUN, where=where)
    if isinstance(error, TransportError | RequestException | DataCorruption | ConnectionError):
        return RetryLater("Google cannot be reached", do=f"check the network and the proxy; {_NEXT_RUN}", where=where)
    if isinstance(error, RefreshError):
        reason = _line(str(error.args[0]) if error.args else "")
        return SignInError(
            f"Google refuses the credentials: {reason}",
            do="check the destination's `auth`: is the key still there, and whole?",
            where=where,
        )
    said = _line(str(getattr(error, "message", "") or error))
    code, reasons = _code(error), {str(item.get("reason")) for item in getattr(error, "errors", ()) or () if isinstance(item, dict)}
    return _sorted(code, reasons, said, where)


def _sorted(code: int, reasons: set[str], said: str, where: str) -> MuxlyError:
    what = f"BigQuery says: {said}"
    if code == 401 or "UNAUTHENTICATED" in said:
        return SignInError(
            f"Google refuses the credentials: {said}", do="check the destination's `auth`, and this machine's clock", where=where
        )
    if "insufficient authentication scopes" in said or "ACCESS_TOKEN_SCOPE_INSUFFICIENT" in said:
        return SignInError(
            f"the credentials lack a scope: {said}", do="sign in with the scope https://www.googleapis.com/auth/bigquery", where=where
        )
    if _NO_BILLING.search(said) or "billingNotEnabled" in reasons:
        return ConfigurationError(what, do="enable billing in the project: BigQuery's sandbox changes no rows", where=where)
    if "quotaExceeded" in reasons:
        return RetryLater(what, do=f"deliver less often with `batching: {{age: 15m}}`; {_NEXT_RUN}", where=where)
    if reasons & _PASSING or _CONCURRENT.search(said) or code in (408, 412, 429, 500, 502, 503, 504):
        return RetryLater(what, do=_NEXT_RUN, where=where)
    if code == 403 and ("has not been used in project" in said or "SERVICE_DISABLED" in said):
        return ConfigurationError(what, do="enable the BigQuery API in the project that runs the jobs", where=where)
    if code == 403:
        return _denied(said, where)
    if code == 404:
        return ConfigurationError(what, do=_missing(said), where=where)
    if code == 400 and _OF_THE_TABLE.search(said):
        return ConfigurationError(what, do="change the table, set another `table`, or rename a column with `columns:`", where=where)
    if code == 400 and _OF_A_RECORD.search(said):
        return RecordRefused(said, where=where)
    if code == 400:
        return ConfigurationError(what, do="correct the destination's `table`, `partition_by` or `cluster_by`, or the table", where=where)
    return MuxlyError(what, do="try again; if it stays, look the message up in BigQuery's list of errors", where=where)


def _denied(said: str, where: str) -> MuxlyError:
    found = _PERMISSION.search(said)
    permission = found[0] if found else "bigquery.tables.updateData"
    role = _ROLES.get(permission.rpartition(".")[0], "a role that holds it")
    return SignInError(f"BigQuery says: {said}", do=f"grant the account {permission}: {role}", where=where)


def _missing(said: str) -> str:
    if "Dataset" in said:
        return "create the dataset where its data are to be (`bq mk --dataset --location=EU PROJECT:DATASET`), or correct `dataset`"
    return "correct `project`, `dataset` and `table`, and `location` where it is set"


def _code(error: Exception) -> int:
    code: Any = getattr(error, "code", 0) or getattr(getattr(error, "response", None), "status_code", 0)
    return int(code) if isinstance(code, int) else 0


def _line(text: str) -> str:
    """The message on one line, without addresses and without what looks like a secret."""
    return Redaction()(" ".join(_ADDRESS.sub("", text).split()))[:500]
