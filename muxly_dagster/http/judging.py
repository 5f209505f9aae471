"""One attempt judged: whether its answer is taken, whether the request goes out again, what the error says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from muxly_dagster.errors import MuxlyError
from muxly_dagster.http import outcomes
from muxly_dagster.http.credentials import Credentials
from muxly_dagster.http.hosts import same_place
from muxly_dagster.http.messages import Request, Response
from muxly_dagster.http.outcomes import Judge, Verdict
from muxly_dagster.http.outgoing import Outgoing
from muxly_dagster.http.redaction import Redaction
from muxly_dagster.http.retries import UNTOUCHED, retry_after
from muxly_dagster.http.wire import Timeouts, Trouble


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt that failed: whether to go on, the wait the server asked for in seconds, whether a rate limit was hit.

    `refused` are credentials that were given out for a while and were not accepted.
    """

    error: MuxlyError
    again: bool = False
    asked: float | None = None
    limited: bool = False
    refused: Credentials | None = None


@dataclass(slots=True)
class Course:
    """What became of one request so far: the status of each attempt that was sent (0: no answer), and the seconds the last one took."""

    statuses: list[int] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Judging:
    """How one client reads what comes back."""

    judge: Judge | None
    redaction: Redaction
    timeouts: Timeouts
    max_body: int

    def where(self, asked: Outgoing) -> str:
        """What was asked, for people."""
        return f"{asked.method} {self.redaction(asked.url)}"

    def of_trouble(self, trouble: Trouble, request: Request, sent: Outgoing) -> Failure:
        """What no usable answer means."""
        error = outcomes.failure_of_trouble(trouble, self.where(sent), self.redaction, self.timeouts, self.max_body)
        if trouble.kind not in ("connect", "timeout", "broken", "garbled"):
            return Failure(error)
        if trouble.sent and not request.repeatable:
            return Failure(outcomes.not_repeated(error))
        return Failure(error, again=True)

    def of_response(self, response: Response, request: Request, sent: Outgoing) -> "Response | Failure":
        """The answer itself, or why it is none."""
        own = self.judge(response) if self.judge else None
        usual: Verdict = "ok" if response.status in request.expected else outcomes.verdict_of(response.status)
        verdict, asked, cause = (*own, None)[:3] if isinstance(own, tuple) else (own or usual, None, None)
        if verdict in ("ok", "skip"):
            return response
        if verdict != "retry":
            # Without the API's own word a 403 is a missing permission, which another token would miss too.
            refused = verdict == "sign_in" and (own is not None or response.status == 401) and _was_signed(request.headers, sent, response)
            return Failure(outcomes.failure_of_response(response, verdict, asked, cause), refused=sent.credentials if refused else None)
        asked = retry_after(response) if asked is None else asked
        error = outcomes.failure_of_response(response, verdict, asked, cause)
        if own is None and not request.repeatable and response.status not in UNTOUCHED:
            return Failure(outcomes.not_repeated(error))
        return Failure(error, again=True, asked=asked, limited=response.status == 429 or cause == "rate_limit")


def _was_signed(own: Mapping[str, str] | None, sent: Outgoing, response: Response) -> bool:
    """Whether the credentials reached the place that answered: no header of the request's own, no other host instead."""
    replaced = {name.lower() for name in own or ()} & {name.lower() for name in sent.credentials.headers}
    return not replaced and same_place(urlsplit(sent.url), urlsplit(response.url))
