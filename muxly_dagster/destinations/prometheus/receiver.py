"""What remote write and the Pushgateway have in common: the client, and what an answer that is no success means."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import SecretStr

from muxly_dagster.auth import Auth
from muxly_dagster.errors import ConfigurationError, GoneError, MuxlyError, SourceError
from muxly_dagster.http import Http, Request, Response, Retries, Timeouts, Verdict, sign_in

EXCERPT = 300
_NOT_ABOUT_THE_BODY = frozenset({401, 403, 408, 425, 429})
_LONG_ENOUGH_TO_BE_SECRET = 16


@dataclass(frozen=True)
class Receiver:
    """Where samples go, and how."""

    url: SecretStr
    auth: Auth
    headers: Mapping[str, SecretStr]
    timeout: float
    retries: Retries

    @property
    def address(self) -> str:
        """The URL, to be shown to nobody."""
        return self.url.get_secret_value()

    @property
    def host(self) -> str:
        """The part of the URL that is no secret."""
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def client(self) -> Http:
        """A client, to be used in a `with`."""
        parts = urlsplit(self.address)
        hidden = [s for s in parts.path.split("/") if len(s) >= _LONG_ENOUGH_TO_BE_SECRET] + [v for _, v in parse_qsl(parts.query) if v]
        headers = {name: value.get_secret_value() for name, value in self.headers.items()}
        return Http(
            self.address,
            auth=sign_in(self.auth),
            timeouts=Timeouts(connect=min(10.0, self.timeout), read=self.timeout, total=self.timeout),
            retries=self.retries,
            headers=headers,
            judge=_judge,
            secrets=[*hidden, *(value for value in headers.values() if len(value) >= _LONG_ENOUGH_TO_BE_SECRET)],
            concurrency=1,
        )

    def ask(self, http: Http, method: str, url: str, **fields: Any) -> Response:
        """Send a request that may be repeated. Raises RetryLater, SignInError, GoneError, ConfigurationError.

        What comes back is a success, or a refusal of what was sent.
        """
        try:
            response = http.request(Request(method, url, idempotent=True, **fields))
        except SourceError as error:
            do = error.do or "correct `url`"
            raise ConfigurationError(f"the answer is of no use: {error.what}", do=do, where=self.host) from None
        said = f" ({text})" if (text := response.excerpt(EXCERPT)) else ""
        if 300 <= response.status < 400:
            raise ConfigurationError(f"it has moved: {response.reason}", do="set `url` to its new address", where=self.host)
        if response.status == 410:
            raise GoneError(f"it is gone for good: {response.reason}{said}", do="set `url` to another receiver", where=self.host)
        if response.status in (404, 405, 501):
            do = "correct `url`, and see that the receiver is switched on (Prometheus: --web.enable-remote-write-receiver)"
            raise ConfigurationError(f"nothing takes samples at this address: {response.reason}{said}", do=do, where=self.host)
        return response


def advice(error: MuxlyError) -> str:
    """What an error tells people to do."""
    problems = error.problems if isinstance(error, ConfigurationError) else []
    return error.do or next((problem.do for problem in problems if problem.do), "")


def _judge(response: Response) -> Verdict | None:
    """Refusals and redirects are read here; everything else means what it usually means."""
    return "skip" if 300 <= response.status < 500 and response.status not in _NOT_ABOUT_THE_BODY else None
