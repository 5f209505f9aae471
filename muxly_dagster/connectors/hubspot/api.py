"""HubSpot's API as it is spoken to: date-versioned paths, budgets, and answers turned into errors that say what to do."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from muxly_dagster.errors import MuxlyError, RetryLater, SignInError, SourceError
from muxly_dagster.http import Http, Limit, Request, Response, Verdict

API_VERSION = "2026-09"
"""The version in every path (https://developers.hubspot.com/docs/developer-tooling/platform/versioning)."""

BASE_URL = "https://api.hubapi.com"
SEARCH_PATH = "/crm/objects/*/search"

T = TypeVar("T")

_SUPPORTED_MONTHS = 18
_POLICY_WAITS = {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": 10.0}
_LOCK_SECONDS = 2.0  # "Locks will last for 2 seconds" (https://developers.hubspot.com/docs/api-reference/error-handling)
_OURS = frozenset({400, 403, 404, 414})
"""Statuses whose bodies say more than their numbers: they are handed back and read by `checked`."""


class _Problem(msgspec.Struct, frozen=True, rename="camel"):
    message: str = ""
    category: str = ""
    policy_name: str = ""
    context: dict[str, Any] = {}
    errors: list[dict[str, Any]] = []


class _Failure(msgspec.Struct, frozen=True, rename="camel"):
    message: str = ""
    category: str = ""
    sub_category: Any = None


class _Failures(msgspec.Struct, frozen=True):
    errors: list[_Failure] = []


_GONE, _NONE = "OBJECT_NOT_FOUND", "NO_ASSOCIATIONS_FOUND"


def budgets(requests_per_10s: int, searches_per_second: float) -> tuple[Limit, ...]:
    """The account's budgets (https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines)."""
    return Limit(requests=requests_per_10s, window=10), Limit(per_second=searches_per_second, path=SEARCH_PATH)


def judge(response: Response) -> Verdict | tuple[Verdict, float | None] | None:
    """What an answer means where its status alone does not say it."""
    if response.status in _OURS:
        return "skip"
    if response.status == 429:
        policy = _problem(response).policy_name
        if policy == "DAILY":
            return "skip"  # the day's allowance is gone: no waiting helps
        return ("retry", _POLICY_WAITS[policy]) if policy in _POLICY_WAITS and "retry-after" not in response.headers else None
    if response.status == 423:
        return "retry", _LOCK_SECONDS
    return "retry" if response.status == 477 else None  # the account is being moved to another data centre


@dataclass(frozen=True)
class Api:
    """A client, and the version that its paths are of."""

    http: Http
    version: str

    def path(self, area: str, *parts: str) -> str:
        """`crm/objects` and `contacts` as `/crm/objects/2026-09/contacts`."""
        return "/".join([f"/{area}/{self.version}", *(quote(part, safe="") for part in parts)])

    def ask(self, method: str, path: str, *, json: Any = None) -> Response:
        """Send one request, and give a good answer. Raises what `checked` and the client raise."""
        return checked(self.http.request(Request(method, path, json=json)))

    def get(self, area: str, *parts: str, params: Mapping[str, Any] | None = None) -> Response:
        """The good answer to a GET of this path; errors as in `ask`."""
        return checked(self.http.request(Request("GET", self.path(area, *parts), params)))

    def reading(self, area: str, *parts: str, json: Any, tag: Any = None) -> Request:
        """A POST that only reads, and so may be sent twice."""
        return Request("POST", self.path(area, *parts), json=json, tag=tag, idempotent=True)

    def each(self, requests: Iterable[Request], in_flight: int) -> Iterator[Response]:
        """Good answers, in the order of the requests."""
        for response in self.http.each(requests, in_flight):
            yield checked(response)


def checked(response: Response) -> Response:
    """The response, if it is a good one. Raises SignInError, SourceError or RetryLater with what the answer says."""
    if response.status < 400:
        return response
    problem = _problem(response)
    said = response.redaction(problem.message or response.excerpt())
    raise _error(response, problem, said)


def parsed(response: Response, as_type: type[T]) -> T:
    """The body of an answer. Raises SourceError where it is not what HubSpot's API says."""
    try:
        return msgspec.json.decode(response.content, type=as_type)
    except (msgspec.DecodeError, ValueError) as error:
        what = f"the answer is not one of HubSpot's API ({response.redaction(str(error))})"
        raise SourceError(what, do="try again; if it stays, check `api_version` and `base_url`", where=response.where) from None


def whole(response: Response, what: str, do: str) -> Response:
    """The answer of a batch read, if it has all that there is.

    What HubSpot could not give stands as errors beside the results, with status 207. Records that went in the meantime and those without
    associations are among it, and nothing to worry about. Raises SourceError for anything else: taken for an answer, it would be a loss.
    """
    if response.status == 207:
        for failure in parsed(response, _Failures).errors:
            if failure.category != _GONE and _NONE not in str(failure.sub_category):
                raise SourceError(f"HubSpot could not read {what} ({response.redaction(failure.message)})", do=do, where=response.where)
    return response


def _error(response: Response, problem: _Problem, said: str) -> MuxlyError:
    where = response.where
    if response.status == 429:
        do = "it starts anew at midnight in the account's time zone; pull less often, or fewer objects. What was read is kept"
        return RetryLater(f"the account's allowance of requests for today is used up ({said})", do=do, where=where)
    if response.status == 403:
        scopes = _scopes(problem)
        if scopes:
            do = f"add {', '.join(scopes)} to the service key or private app, or to the OAuth app and have it installed again"
            return SignInError(f"the app lacks a permission (scope): {', '.join(scopes)}", do=do, where=where)
        do = "give the app the scope that this takes; some objects need a paid subscription of the account"
        return SignInError(f"the app is not allowed to do this ({said})", do=do, where=where)
    if response.status == 404:
        do = "check the name: `muxly connectors streams SOURCE` lists what the account has"
        return SourceError(f"HubSpot does not have this ({said})", do=do, where=where)
    if response.status == 414:
        return SourceError("HubSpot finds the request's address too long", do="name fewer `properties`", where=where)
    return SourceError(f"HubSpot refuses the request ({said})", do="change the pull's settings as the answer says", where=where)


def _problem(response: Response) -> _Problem:
    try:
        return msgspec.json.decode(response.content, type=_Problem)
    except (msgspec.DecodeError, ValueError):
        return _Problem()


def _scopes(problem: _Problem) -> list[str]:
    """The scopes that are missing: any of them would do where HubSpot names several."""
    contexts = [problem.context, *(e.get("context") or {} for e in problem.errors)]
    names = ("requiredGranularScopes", "requiredScopes", "missingScopes")
    return list(dict.fromkeys(str(scope) for context in contexts for name in names for scope in context.get(name) or []))


def clock(response: Response) -> dt.datetime:
    """What time it is at HubSpot: windows must not depend on this machine's clock."""
    try:
        return parsedate_to_datetime(response.headers.get("date", "")).astimezone(dt.UTC)
    except (ValueError, TypeError):
        return dt.datetime.now(dt.UTC)


def sunset(version: str) -> dt.date:
    """The month in which support for a version ends, 18 months after it came, as its first day."""
    year, month = int(version[:4]), int(version[5:7]) + _SUPPORTED_MONTHS
    return dt.date(year + (month - 1) // 12, (month - 1) % 12 + 1, 1)


def in_chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The items, so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
