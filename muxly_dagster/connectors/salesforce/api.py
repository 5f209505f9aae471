"""Salesforce's REST API as it is spoken to: versioned paths, queries, and answers turned into errors that say what to do."""

import datetime as dt
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import msgspec

from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError, SourceError
from muxly_dagster.http import Http, Request, Response, Verdict

API_VERSION = "67.0"
"""Summer '26: every instance has it. Versions live for at least three years
(https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/api_rest_eol.htm)."""

_OURS = frozenset({400, 403, 404, 405, 409})
"""Statuses whose bodies say more than their numbers: they are handed back and read by `checked`."""

_FORBIDDEN = frozenset({"INSUFFICIENT_ACCESS", "INSUFFICIENT_ACCESS_OR_READONLY", "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY"})
_WRONG = frozenset({"INVALID_FIELD", "INVALID_TYPE", "MALFORMED_QUERY", "INVALID_FIELD_FOR_INSERT_UPDATE", "REQUIRED_FIELD_MISSING"})
_NO_BULK = frozenset({"INVALIDENTITY", "FEATURENOTENABLED", "FUNCTIONALITY_NOT_ENABLED", "NOT_SUPPORTED", "UNSUPPORTED_OPERATION"})
_USAGE = re.compile(r"api-usage=(\d+)/(\d+)")


class Missing(SourceError):
    """What the request names is not there: an object type, a record, a job, the rest of a query."""


class TooSlow(SourceError):
    """The query takes longer than Salesforce lets it while somebody waits for its answer."""


class NoBulk(SourceError):
    """The object cannot be read by Bulk API 2.0."""


class Refused(SourceError):
    """The request is one that Salesforce does not take, for a reason that its answer says."""


class Problem(msgspec.Struct, frozen=True):
    """One of the errors that an answer lists."""

    error_code: str = msgspec.field(default="", name="errorCode")
    message: str = ""


def judge(response: Response) -> Verdict | tuple[Verdict, float | None] | None:
    """What an answer means where its status alone does not say it."""
    if response.status not in _OURS:
        return None
    problem = problem_of(response)
    if problem.error_code == "UNABLE_TO_LOCK_ROW" or (problem.error_code == "REQUEST_LIMIT_EXCEEDED" and "oncurrent" in problem.message):
        return "retry", 5.0  # others of our own requests have to end first
    return "skip"


def checked(response: Response) -> Response:
    """The response, if it is a good one. Raises ConfigurationError, SignInError, RetryLater or SourceError with what it says."""
    if response.status < 400:
        return response
    raise _error(response)


def problem_of(response: Response) -> Problem:
    """The first error that an answer lists."""
    try:
        found = msgspec.json.decode(response.content, type=list[Problem] | Problem)
    except (msgspec.DecodeError, ValueError):
        return Problem()
    return found if isinstance(found, Problem) else found[0] if found else Problem()


def _error(response: Response) -> MuxlyError:
    problem, where = problem_of(response), response.where
    code = problem.error_code
    said = response.redaction(f"{code}: {problem.message}" if code else response.excerpt())
    if code == "REQUEST_LIMIT_EXCEEDED":
        do = "wait: the allowance covers the last 24 hours; pull less often, or large objects with `mode: bulk`. What was read is kept"
        return RetryLater(f"the organisation's requests of the last 24 hours are used up ({said})", do=do, where=where)
    if code == "QUERY_TIMEOUT":
        return TooSlow(f"the query takes too long ({said})", do="set `mode: bulk` for this pull, or name fewer `fields`", where=where)
    if code in _NO_BULK:
        return NoBulk(f"this object cannot be read in bulk ({said})", do="set `mode: rest` for this pull", where=where)
    if code in _FORBIDDEN or (response.status == 403 and code != "INVALID_SESSION_ID"):
        do = "give the signed-in user the permission on this object and its fields (profile or permission set), and `API Enabled`"
        return SignInError(f"the user is not allowed to do this ({said})", do=do, where=where)
    if code in _WRONG:
        do = "check the names; a field that exists may be hidden from this user by field-level security"
        return ConfigurationError(f"Salesforce does not take this ({said})", do=do, where=where)
    if code == "INVALID_QUERY_LOCATOR":
        return RetryLater(f"the query's result has gone meanwhile ({said})", do="run it again: it goes on where it was", where=where)
    if response.status == 404:
        do = "check the name and `api_version`: `muxly connectors streams SOURCE` lists what the user may see"
        return Missing(f"Salesforce does not have this ({said})", do=do, where=where)
    return Refused(f"Salesforce refuses the request ({said})", do="change what is asked as the answer says", where=where)


@dataclass(frozen=True)
class Api:
    """A client and the version that its paths are of. Once `stop` is set, nobody waits for anything any more."""

    http: Http
    version: str
    stop: threading.Event = field(default_factory=threading.Event)

    def path(self, *parts: str) -> str:
        """`sobjects` and `Account` as `/services/data/v67.0/sobjects/Account`."""
        return "/".join([f"/services/data/v{self.version}", *(quote(part, safe="") for part in parts)])

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Response:
        """The good answer to a GET. Raises what `checked` and the client raise."""
        return checked(self.http.request(Request("GET", path, params)))

    def send(self, method: str, path: str, *, json: Any = None, idempotent: bool | None = None) -> Response:
        """The good answer to a request that changes something; errors as in `get`."""
        return checked(self.http.request(Request(method, path, json=json, idempotent=idempotent)))

    def count(self, soql: str, *, every: bool) -> int:
        """How many records a `SELECT COUNT() ...` finds; `every`: deleted ones too."""
        return int(self.get(self.path("queryAll" if every else "query"), {"q": soql}).json()["totalSize"])

    def now(self) -> dt.datetime:
        """What time it is at Salesforce, whose clock stamps the records. Any request tells; the cheapest is the list of resources."""
        return clock(self.get(self.path()))


def clock(response: Response) -> dt.datetime:
    """The time that an answer was made."""
    try:
        return parsedate_to_datetime(response.headers.get("date", "")).astimezone(dt.UTC)
    except (ValueError, TypeError):
        return dt.datetime.now(dt.UTC)


def usage(response: Response) -> tuple[int, int] | None:
    """The requests of the last 24 hours and how many there may be, as every answer's Sforce-Limit-Info says."""
    found = _USAGE.search(response.headers.get("sforce-limit-info", ""))
    return (int(found[1]), int(found[2])) if found else None
