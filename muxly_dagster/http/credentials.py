"""Credentials on the wire: what `auth:` means in headers and query, and how to leave it out for somebody else's host."""

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Self
from urllib.parse import SplitResult, unquote

from muxly_dagster.auth import ApiKey, Auth, Basic, Bearer, CustomAuth, OAuth2, ServiceAccount, TokenSource
from muxly_dagster.errors import ConfigurationError

_PRIVATE = frozenset({"authorization", "proxy-authorization", "cookie"})
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, repr=False)
class Credentials:
    """Headers and query parameters that sign in, and the texts in them that nobody may see."""

    headers: Mapping[str, str]
    params: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()

    @classmethod
    def of(cls, auth: Auth, base: SplitResult | None = None) -> Self:
        """What `auth` sends; the user and password of the base URL where it sends nothing.

        Raises ConfigurationError, also for a kind whose credentials run out: `sign_in` makes a token source of those.
        """
        match auth:
            case Bearer():
                token = auth.token.get_secret_value()
                made = cls({"Authorization": f"Bearer {token}"}, (), (token,))
            case ApiKey(into="query"):
                key = auth.prefix + auth.key.get_secret_value()
                made = cls({}, ((auth.name, key),), (key, auth.key.get_secret_value()))
            case ApiKey():
                key = auth.prefix + auth.key.get_secret_value()
                made = cls({auth.name: key}, (), (key, auth.key.get_secret_value()))
            case Basic():
                made = cls._basic(auth.username, auth.password.get_secret_value())
            case OAuth2() | ServiceAccount() | CustomAuth():
                raise ConfigurationError(f"`auth` of kind {auth.kind} cannot be used here", do="use none, bearer, api_key or basic")
            case _ if base and base.username:
                made = cls._basic(unquote(base.username), unquote(base.password or ""))
            case _:
                made = cls({})
        check_headers(made.headers)
        return made

    @classmethod
    def _basic(cls, username: str, password: str) -> Self:
        packed = base64.b64encode(f"{username}:{password}".encode()).decode()
        # Where there is no password the user name is the key (Stripe).
        return cls({"Authorization": f"Basic {packed}"}, (), (packed, password or username))

    @property
    def param_names(self) -> frozenset[str]:
        """The query parameters that hold a key."""
        return frozenset(name for name, _ in self.params)

    def strip(self, headers: Mapping[str, str], hidden: frozenset[str]) -> dict[str, str]:
        """The headers that may be shown to another host: none that signs in, none that holds a secret."""
        own = {name.lower() for name in self.headers} | _PRIVATE
        return {
            name: value
            for name, value in headers.items()
            if name.lower() not in own and not any(secret and secret in value for secret in hidden)
        }


class Live:
    """Credentials that a token source gives anew whenever a request is made; `learn` is told of every secret in them."""

    def __init__(self, source: TokenSource, learn: Callable[[Iterable[str]], None]) -> None:
        self._source, self._learn = source, learn
        self._last: Credentials | None = None

    def now(self) -> Credentials:
        """What is valid now: the same object as long as it is. Raises SignInError, RetryLater, ConfigurationError."""
        given = self._source.headers()
        last = self._last
        if last is not None and last.headers == given:
            return last
        token = next((value.rpartition(" ")[2] for name, value in given.items() if name.lower() == "authorization"), "")
        made = Credentials(dict(given), (), (*self._source.secrets(), token))
        check_headers(made.headers)
        self._learn(made.secrets)
        self._last = made
        return made

    def refused(self, credentials: Credentials) -> bool:
        """Tell the source that its credentials were refused. Whether asking again may give others."""
        return self._source.refused(credentials.headers)


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises ConfigurationError for a header that cannot be sent. Never shows its value."""
    if not _CONTROL.search("".join(headers.values())) and all(map(_is_name, headers)):
        return
    for name, value in headers.items():
        if not _is_name(name):
            raise ConfigurationError("a header has a name that HTTP does not allow", do="use letters, digits and hyphens")
        if _CONTROL.search(value):
            raise ConfigurationError(
                f"the header {name} would hold a line break or another control character",
                do="check where its value comes from: files and variables often end in a line break",
            )


@lru_cache(maxsize=1024)
def _is_name(text: str) -> bool:
    return re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", text) is not None
