"""Who may do what: write keys may collect, the admin token may do everything, and with neither set only this machine may.

Accounts and roles take this guard's place later; routes ask for `admin` or for `writer` and know nothing of how it is decided.
"""

import base64
import binascii
import hmac
import ipaddress
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from muxly_dagster.api.problems import ApiError
from muxly_dagster.api.service import Service, service_of

_BEARER = HTTPBearer(auto_error=False, scheme_name="admin", description="The value of MUXLY_ADMIN_TOKEN.")
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


def credentials(request: Request) -> str:
    """What a request signs in with: a bearer token, or the user name (a write key, as Segment's clients send it) or password of basic."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        return _of_basic(value)
    return value.strip() if scheme.lower() in ("bearer", "token") else ""


def is_admin(service: Service, given: str) -> bool:
    """Whether this is the admin token, compared in constant time."""
    return bool(service.admin_token) and hmac.compare_digest(given.encode(), service.admin_token.encode())


def is_local(service: Service, request: Request) -> bool:
    """Whether a request comes from this machine and no web page of somebody else's had a browser send it (DNS rebinding, CSRF)."""
    client = request.client.host if request.client else ""
    host = request.url.hostname or ""
    origin = request.headers.get("origin", "")
    of_page = origin.partition("://")[2].rpartition(":")[0] or origin.partition("://")[2]
    return service.loopback and _is_loopback(client) and host in _LOCAL_NAMES and (not origin or of_page in _LOCAL_NAMES)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _of_basic(value: str) -> str:
    try:
        user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return password or user
