"""What an answer means, and the error that says so: what happened, where, what to do next, and never a secret."""

from collections.abc import Callable
from typing import Literal

from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError, SourceError
from muxly_dagster.http.messages import Response
from muxly_dagster.http.redaction import Redaction
from muxly_dagster.http.retries import PASSING
from muxly_dagster.http.wire import Timeouts, Trouble

Verdict = Literal["ok", "retry", "sign_in", "skip", "fail"]
"""What an answer means: take it, send the request again, renew the credentials, hand it back as it is, give up."""

Cause = Literal["rate_limit", "quota", "auth", "permission", "missing"]
"""What the trouble is called, where neither verdict nor status says it."""

Judge = Callable[[Response], Verdict | tuple[Verdict, float | None] | tuple[Verdict, float | None, Cause | None] | None]
"""An API's own reading of its answers, perhaps with the wait before a retry in seconds, and the cause; None leaves it to the status."""

ADD_HOST = "if you trust that host, list it under `hosts`, or correct base_url"


def verdict_of(status: int) -> Verdict:
    """What a status means where the API has no reading of its own."""
    if 200 <= status < 300:
        return "ok"
    if status in (401, 403):
        return "sign_in"
    return "retry" if status in PASSING else "fail"


def failure_of_response(response: Response, verdict: Verdict, after: float | None = None, cause: Cause | None = None) -> MuxlyError:
    """The error for an answer that is no success; `after` is the wait it asks for, in seconds. `cause` is stronger than the status."""
    said = response.excerpt()
    tail = f": {said}" if said else ""
    if cause == "quota":
        do = "wait until the provider renews the quota, or raise it there"
        return RetryLater(f"the quota is used up ({response.reason}){tail}", do=do, where=response.where, after=after)
    if cause == "missing":
        do = "check what is asked for: was it deleted, or is it another account's?"
        return SourceError(f"it is not there ({response.reason}){tail}", do=do, where=response.where)
    if verdict == "retry" or cause == "rate_limit":
        if response.status == 429 or cause == "rate_limit":
            do = "lower this source's `limits` or run it less often; other programs may share the same allowance"
            return RetryLater(f"the rate limit is used up ({response.reason}){tail}", do=do, where=response.where, after=after)
        do = "try again later; if it stays, look at the service's status page"
        return RetryLater(f"the service cannot answer now ({response.reason}){tail}", do=do, where=response.where, after=after)
    if verdict == "sign_in" or cause in ("auth", "permission"):
        if cause == "permission" or (response.status == 403 and cause is None):
            do = "give this token or key the permission (scope) the request needs, or use another one"
            return SignInError(f"the credentials do not allow this ({response.reason}){tail}", do=do, where=response.where)
        do = "check `auth`: is the token or key complete, still valid, and for this service?"
        return SignInError(f"the credentials were refused ({response.reason}){tail}", do=do, where=response.where)
    if 300 <= response.status < 400:
        where_to = response.redaction(response.headers.get("location", "an unnamed place"))
        do = "set base_url or the path to the new address"
        return SourceError(f"redirects to {where_to} ({response.reason}); not followed", do=do, where=response.where)
    if response.status in (404, 410):
        return SourceError(
            f"there is nothing at this address ({response.reason}){tail}", do="check base_url and path", where=response.where
        )
    do = "change what is asked as the answer says" if response.status < 500 else "report it to the service: it failed for good"
    return SourceError(f"the request was refused ({response.reason}){tail}", do=do, where=response.where)


def failure_of_trouble(trouble: Trouble, where: str, redaction: Redaction, timeouts: Timeouts, max_body: int) -> MuxlyError:
    """The error for a request that got no usable answer."""
    text = redaction(trouble.text)
    match trouble.kind:
        case "connect":
            do = "check base_url, the network and whether the service is up"
            return RetryLater(f"no connection could be made ({text})", do=do, where=where)
        case "timeout":
            do = "try again later, ask for smaller pages, or allow more time"
            limits = f"{timeouts.read:g} s without a byte, {timeouts.total:g} s in all" if trouble.sent else f"{timeouts.connect:g} s"
            what = "no answer" if trouble.sent else "no connection"
            return RetryLater(f"{what} in time (allowed: {limits})", do=do, where=where)
        case "broken":
            do = "try again later; if it stays, ask for smaller pages: the service or a proxy cuts its answers short"
            return RetryLater(f"the answer broke off ({text})", do=do, where=where)
        case "garbled":
            return SourceError(f"what came is not HTTP ({text})", do="check base_url: host, port, and http or https", where=where)
        case "certificate":
            do = "check base_url; for a certificate authority of your own, name its file in SSL_CERT_FILE"
            return SourceError(f"the server's certificate is not trusted ({text})", do=do, where=where)
        case "too_large":
            do = "ask for smaller pages or fewer fields, or raise the manifest's max_answer"
            return SourceError(f"the answer is larger than the {max_body:,} bytes allowed ({text})", do=do, where=where)
        case "invalid":
            return ConfigurationError(f"the request cannot be sent ({text})", do="check base_url, path and headers", where=where)
        case "closed":
            return stopped(where)


def not_repeated(failure: MuxlyError) -> MuxlyError:
    """The error for a passing trouble after which the request may already have been carried out."""
    what = f"{failure.what}; not sent again, because it may have been carried out and carries no Idempotency-Key"
    return RetryLater(what, do=failure.do, where=failure.where, after=failure.after if isinstance(failure, RetryLater) else None)


def given_up(failure: MuxlyError, attempts: int, after: float | None) -> MuxlyError:
    """The error when a passing trouble did not pass; `after` is the wait the server asked for last, in seconds."""
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    what = f"{failure.what}; gave up after {times}" + (f", asked to wait {after:g} s" if after else "")
    if isinstance(failure, RetryLater):
        return RetryLater(what, do=failure.do, where=failure.where, after=after)
    return SourceError(what, do=failure.do, where=failure.where)


def stopped(where: str) -> RetryLater:
    """The error when nobody wants the answer any more."""
    return RetryLater("the request was stopped before its answer came", do="run it again", where=where)
