"""What is asked and what is answered: requests, responses and their headers as values."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import msgspec

from muxly_dagster.errors import SourceError
from muxly_dagster.http.redaction import Redaction

_PATTERNS_ONLY = Redaction()


class Headers(Mapping[str, str]):
    """Header fields by name, upper and lower case alike; values of a repeated field are joined by `, ` (RFC 9110, 5.3)."""

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, str] = {}
        for name, value in pairs:
            name = name.lower()
            self._values[name] = f"{self._values[name]}, {value}" if name in self._values else value

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __repr__(self) -> str:
        return f"Headers({', '.join(self._values)})"


@dataclass(frozen=True, repr=False)
class Request:
    """One request. `url` is absolute or continues the client's base URL; `tag` is the caller's own and never sent.

    `params` are added to the URL's query: None leaves one out, a list repeats it. `json` is the body as a value, `content` as
    bytes. `idempotent` says whether the request may safely be sent twice; None judges by method and `Idempotency-Key`.
    `expected` are statuses that are answers like any other here, such as 404 where something may be gone; a judge still comes first.
    `at_home` keeps the client's credentials to the base URL's own host: for addresses that somebody else names, such as a record.
    """

    method: str
    url: str
    params: Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None
    json: Any = None
    content: bytes | None = None
    tag: Any = None
    idempotent: bool | None = None
    expected: frozenset[int] = frozenset()
    at_home: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does what sending it once does (RFC 9110, 9.2.2)."""
        if self.idempotent is not None:
            return self.idempotent
        keyed = any(name.lower() == "idempotency-key" for name in self.headers or ())
        return keyed or self.method.upper() not in ("POST", "PATCH", "CONNECT")

    def __repr__(self) -> str:
        # Only the client knows its secrets, and some (Slack's webhooks) stand in the path.
        return f"<Request {self.method} {urlsplit(self.url).hostname or ''}>"


@dataclass(frozen=True, repr=False)
class Response:
    """One answer, its body read in full. `url` is where it came from after redirects, without the client's credentials."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    url: str
    request: Request
    redaction: Redaction = _PATTERNS_ONLY

    def __post_init__(self) -> None:
        if not isinstance(self.headers, Headers):
            object.__setattr__(self, "headers", Headers(self.headers.items()))

    @property
    def where(self) -> str:
        """What was asked, for people: method and URL without secrets."""
        return f"{self.request.method} {self.redaction(self.url)}"

    @property
    def reason(self) -> str:
        """The status in words: `404 Not Found`."""
        phrase = next((s.phrase for s in HTTPStatus if s == self.status), "")
        return f"{self.status} {phrase}".strip()

    def excerpt(self, length: int = 200) -> str:
        """The beginning of the body without secrets, for messages."""
        return self.redaction.excerpt(self.content, length)

    def json(self) -> Any:
        """The body as JSON; NaN and numbers of any size are read. Raises SourceError that says what came instead."""
        try:
            return msgspec.json.decode(self.content)
        except (msgspec.DecodeError, ValueError, RecursionError):
            pass
        try:
            return json.loads(self.content)  # slower, but takes NaN, a byte order mark and UTF-16
        except RecursionError:
            problem = "its values are nested too deeply"
        except ValueError as error:
            problem = str(error)
        raise self._not_json(problem)

    def _not_json(self, problem: str) -> SourceError:
        kind = self.headers.get("content-type", "").split(";")[0].strip().lower()
        start = self.excerpt(120)
        if not self.content.strip():
            return SourceError(
                f"answered {self.reason} with an empty body where JSON was expected", do="check the path and the method", where=self.where
            )
        if kind and "json" not in kind:
            do = "check base_url and the path; a web page in place of data is often a log-in page or a proxy's notice"
            return SourceError(f"answered {kind} instead of JSON: {start}", do=do, where=self.where)
        do = "try again; if it stays, the service sends broken JSON or cuts its answers short"
        return SourceError(f"answered JSON that cannot be read ({self.redaction(problem)}): {start}", do=do, where=self.where)

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.where}, {len(self.content)} bytes>"
