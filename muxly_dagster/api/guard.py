"""Who may do what: write keys may collect, the admin token may do everything, and with neither set only this machine may.

Accounts and roles take this guard's place later; routes ask for `admin` or for `writer` and know nothing of how it is decided.
"""

import base64
import binascii
import functools
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from muxly_dagster.api.collecting.known import Known
from muxly_dagster.api.problems import ApiError
from muxly_dagster.api.service import Service, service_of
from muxly_dagster.state.keys import PREFIX, WriteKey, key_hash

_BEARER = HTTPBearer(auto_error=False, scheme_name="admin", description="The value of MUXLY_ADMIN_TOKEN.")
shown_token = _BEARER
shown_key = HTTPBearer(
    auto_error=False, scheme_name="write_key", description="A write key of the source; as user name of basic, or X-Write-Key, too."
)
"""How routes that ask for a `writer` show it."""

_PASSED_ON = ("x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-host", "via")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


def admin(request: Request, _shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)] = None) -> None:
    """Let an administrator pass. Raises ApiError (401, 403)."""
    service = service_of(request)
    if service.admin_token:
        if not is_admin(service, credentials(request)):
            raise ApiError(
                401,
                "Sign in",
                "this needs the admin token",
                do="send `Authorization: Bearer TOKEN`",
                www_authenticate='Bearer realm="muxly"',
            )
        return
    if not is_local(service, request):
        raise ApiError(403, "Only from this machine", "no admin token is set", do="set MUXLY_ADMIN_TOKEN where the API runs")


@dataclass(frozen=True, slots=True)
class Sender:
    """Who posts events: whoever has a write key, or (None) an administrator."""

    key: WriteKey | None = None

    def check(self, source: str, stream: str) -> None:
        """Raises ApiError (403) for a stream that the key does not open."""
        if self.key is not None and not self.key.opens(source, stream):
            raise ApiError(
                403,
                "Not with this key",
                f"the write key {self.key.id} is not for {source}/{stream}",
                do=f"use a key of that stream: `muxly keys create {source} --stream {stream}` makes one",
            )


async def writer(request: Request, given: str = "") -> Sender:
    """Who posts events, by a write key (`given`, or as bearer token, user name of basic, or X-Write-Key) or the admin token.

    Raises ApiError (401, 403, 429), and RetryLater where the keys cannot be read.
    """
    service = service_of(request)
    collecting = service.collecting
    given = given or request.headers.get("x-write-key", "") or credentials(request)
    known = await collecting.known()
    if given:
        if is_admin(service, given):
            return _ADMINISTRATOR
        hashed = key_hash(given)
        key = known.keys.get(hashed)
        if key is None and given.startswith(PREFIX):
            known = await collecting.known_anew()
            key = known.keys.get(hashed)
        if key is not None:
            wait = collecting.rates.wait(key)
            if wait:
                raise ApiError(429, "Too many requests", f"the write key {key.id} may send {key.rate}", retry_after=str(wait))
            return Sender(key)
    if not known.guarded and not service.admin_token:
        if is_local(service, request):
            return _ADMINISTRATOR
        do = "make a write key with `muxly keys create SOURCE`, and send it as `Authorization: Bearer KEY`"
        raise ApiError(403, "Only from this machine", "there are no write keys", do=do)
    what = "this write key is not known, or was revoked" if given else "this needs a write key"
    do = "send `Authorization: Bearer KEY`; `muxly keys create SOURCE` makes a key"
    raise ApiError(401, "Sign in", what, do=do, www_authenticate='Bearer realm="muxly"')


_ADMINISTRATOR = Sender()


def may_post(service: Service, known: Known, hashed: str, *, from_here: bool, source: str, stream: str) -> bool:
    """Whether a post is allowed at first sight, by the hash of the write key it gives ("" without one). Where this says no, `writer` looks
    closely, and says why."""
    if hashed:
        key = known.keys.get(hashed)
        return key is not None and not key.rate and key.opens(source, stream)
    return from_here and service.loopback and not known.guarded and not service.admin_token


def credentials(request: Request) -> str:
    """What a request signs in with: a bearer token, or the user name (a write key, as Segment's clients send it) or password of basic."""
    return credentials_in(request.method, request.headers)


def credentials_in(method: str, headers: Mapping[str, str]) -> str:
    """The same. `headers` have lower-case names, or find them however they are written."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        # Once somebody has signed in to a page, a browser adds this to whatever any other page has it send here.
        return "" if method not in _SAFE and _is_of_another_site(headers) else _of_basic(value)
    return value.strip() if scheme.lower() in ("bearer", "token") else ""


def is_admin(service: Service, given: str) -> bool:
    """Whether this is the admin token, compared in constant time."""
    return bool(service.admin_token) and hmac.compare_digest(given.encode(), service.admin_token.encode())


def is_local(service: Service, request: Request) -> bool:
    """Whether a request comes from this machine, and the API listens for no other."""
    client = request.scope.get("client")
    return service.loopback and client is not None and comes_from_here(client[0], request.headers)


def comes_from_here(client: str, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from this machine, no proxy passed it on for somebody else, and no web page of somebody else's had a browser
    send it (DNS rebinding, CSRF; https://www.w3.org/TR/fetch-metadata/). `headers` as in `credentials_in`.
    """
    if any(name in headers for name in _PASSED_ON):
        return False
    if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":  # a link may lead here
        return False
    return _is_local(client, headers.get("host", ""), headers.get("origin", ""))


def _is_of_another_site(headers: Mapping[str, str]) -> bool:
    """Whether a page of another site had a browser send this. Browsers that do not say so name the page's origin, at least."""
    site = headers.get("sec-fetch-site", "")
    if site:
        return site not in ("same-origin", "none")
    origin = headers.get("origin", "")
    return bool(origin) and origin.partition("://")[2].lower() != headers.get("host", "").lower()


@functools.lru_cache(1000)
def _is_local(client: str, host: str, origin: str) -> bool:
    return _is_loopback(client) and _is_local_name(host) and (not origin or _is_local_name(origin.partition("://")[2]))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_local_name(host: str) -> bool:
    """Whether a host, with its port or without, is a name of this machine."""
    return host.lower() in _LOCAL_NAMES or (host.rpartition(":")[0].lower() in _LOCAL_NAMES and host.rpartition(":")[2].isdecimal())


def _of_basic(value: str) -> str:
    try:
        user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return password or user
