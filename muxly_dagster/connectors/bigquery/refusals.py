"""What BigQuery refuses, said to people: which permission is missing, which limit was met, what to try next.

Sources: BigQuery's page of error messages (`reason`), google.rpc codes of the Storage Read API, google-auth's exceptions.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError, SourceError
from muxly_dagster.http import Redaction

_PERMISSION = re.compile(r"\bbigquery\.[A-Za-z]+(?:\.[A-Za-z]+)+\b")
_ROLES = {
    "bigquery.jobs": "BigQuery Job User on the project that runs the jobs",
    "bigquery.readsessions": "BigQuery Read Session User on the project that runs the jobs",
    "bigquery.tables": "BigQuery Data Viewer on the table or its dataset",
    "bigquery.datasets": "BigQuery Data Viewer on the dataset",
}
_PASSING = {
    "backendError",
    "internalError",
    "jobBackendError",
    "jobInternalError",
    "jobRateLimitExceeded",
    "rateLimitExceeded",
    "tableUnavailable",
}
_ADDRESS = re.compile(r"^(?:\d{3} )?(?:GET|POST|PUT|PATCH|DELETE) https?://\S+?: ")


@contextmanager
def in_words(where: str = "") -> Iterator[None]:
    """Errors of Google's libraries within, as MuxlyErrors. `where` is a table or a project."""
    # Imported here since reading a project asks nothing of Google: these libraries take half a second.
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except (GoogleAPIError, GoogleAuthError, RequestException) as error:
        # Without its cause: Google's errors hold the request.
        raise in_person(error, where) from None


def in_person(error: Exception, where: str = "") -> MuxlyError:
    """An error of Google's libraries as the MuxlyError that says what to do."""
    from google.api_core.exceptions import RetryError
    from google.auth.exceptions import RefreshError, TransportError
    from requests.exceptions import RequestException

    if isinstance(error, RetryError) and isinstance(error.cause, Exception):
        return in_person(error.cause, where)
    if isinstance(error, TransportError | RequestException):
        return RetryLater("Google cannot be reached", do="check the network and the proxy; the pull goes on where it was", where=where)
    if isinstance(error, RefreshError):
        reason = _line(str(error.args[0]) if error.args else "")
        return SignInError(
            f"Google refuses the credentials: {reason}", do="check the source's `auth`: is the key still there, and whole?", where=where
        )
    said = _line(str(getattr(error, "message", "") or error))
    code, reasons = _code(error), {str(item.get("reason")) for item in getattr(error, "errors", ()) if isinstance(item, dict)}
    if code == 401 or "UNAUTHENTICATED" in said:
        return SignInError(f"Google refuses the credentials: {said}", do="check the source's `auth`, and this machine's clock", where=where)
    if "bytesBilledLimitExceeded" in reasons or "exceeded limit for bytes billed" in said:
        return too_many_bytes(said, where)
    if "insufficient authentication scopes" in said or "ACCESS_TOKEN_SCOPE_INSUFFICIENT" in said:
        return SignInError(
            f"the credentials lack a scope: {said}", do="sign in with the scope https://www.googleapis.com/auth/bigquery", where=where
        )
    if reasons & _PASSING or code in (429, 500, 502, 503, 504) or (code == 403 and reasons & {"quotaExceeded", "rateLimitExceeded"}):
        return RetryLater(f"BigQuery says: {said}", do="nothing was lost: the pull goes on where it was; try again later", where=where)
    if code == 403 and ("has not been used in project" in said or "SERVICE_DISABLED" in said):
        return ConfigurationError(
            f"BigQuery says: {said}",
            do="enable the BigQuery API and the BigQuery Storage API in the project that runs the jobs",
            where=where,
        )
    if code == 403:
        return _denied(said, where)
    if code == 404:
        return ConfigurationError(
            f"BigQuery says: {said}",
            do="correct the names, and the source's `location` where the data are not in the US or EU",
            where=where,
        )
    if code == 400:
        return ConfigurationError(f"BigQuery says: {said}", do=_mistake(said), where=where)
    return SourceError(f"BigQuery says: {said}", do="try again; if it stays, look the message up in BigQuery's list of errors", where=where)


def too_many_bytes(said: str, where: str = "") -> ConfigurationError:
    """A job that would be billed for more than it may."""
    return ConfigurationError(
        f"the query would be billed for more than it may: {said}",
        do="read fewer `columns` or fewer partitions, or raise the source's `max_bytes_billed`",
        where=where,
    )


def _denied(said: str, where: str) -> MuxlyError:
    found = _PERMISSION.search(said)
    permission = found[0] if found else "bigquery.tables.getData"
    role = _ROLES.get(permission.rpartition(".")[0], "a role that holds it")
    view = (
        " (a view needs it on the tables behind it too, unless it is authorized there)" if permission.startswith("bigquery.tables") else ""
    )
    return SignInError(f"BigQuery says: {said}", do=f"grant the account {permission}: {role}{view}", where=where)


def _mistake(said: str) -> str:
    if "query parameter" in said.lower():
        return "name every @parameter of the query under the pull's `parameters`"
    if "partition elimination" in said:
        return "say in the pull's `where` or `query` which partitions are meant, or set `partition: true`"
    if "Unrecognized name" in said or "row restriction" in said.lower():
        return "correct the pull's `query`, `where` or `columns`"
    return "correct the pull's `table`, `where` or `query`"


def _code(error: Exception) -> int:
    code: Any = getattr(error, "code", 0)
    return int(code) if isinstance(code, int) else 0


def _line(text: str) -> str:
    """The message on one line, without addresses and without what looks like a secret."""
    return Redaction()(" ".join(_ADDRESS.sub("", text).split()))[:500]
