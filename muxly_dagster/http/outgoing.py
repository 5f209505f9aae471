"""A request made ready for the wire: absolute URL, all headers, body as bytes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from muxly_dagster.http.credentials import Credentials, check_headers
from muxly_dagster.http.hosts import merge_query
from muxly_dagster.http.messages import Request
from muxly_dagster.records import to_json

_DEFAULTS = {"User-Agent": "muxly-dagster", "Accept": "application/json, */*;q=0.8"}


@dataclass(frozen=True, slots=True, repr=False)
class Outgoing:
    """What is sent. The query parameters of `credentials` are kept out of `url` so that no message shows them."""

    method: str
    url: str
    headers: Mapping[str, str]
    credentials: Credentials
    content: bytes | None

    @property
    def address(self) -> str:
        """The whole URL as the other side sees it."""
        return merge_query(self.url, self.credentials.params)


def common_headers(own: Mapping[str, str], credentials: Credentials) -> dict[str, str]:
    """The headers of every request of a client: Muxly's, then the client's, then those that sign in."""
    headers = _merge(_merge(_DEFAULTS, own), credentials.headers)
    check_headers(headers)
    return headers


def outgoing(request: Request, base_url: str, common: Mapping[str, str], credentials: Credentials) -> Outgoing:
    """The request as it is sent; its own headers win over the client's. Raises ConfigurationError."""
    headers = common
    content = request.content
    if content is None and request.json is not None:
        content = to_json(request.json)
        headers = _merge(headers, {"Content-Type": "application/json"})
    if request.headers:
        check_headers(request.headers)
        headers = _merge(headers, request.headers)
    url = merge_query(_absolute(base_url, request.url), list(_pairs(request.params)) if request.params else ())
    return Outgoing(request.method.upper(), url, headers, credentials, content)


def _absolute(base_url: str, url: str) -> str:
    """The URL behind the base URL; one that has a scheme of its own stays as it is."""
    if not base_url or urlsplit(url).scheme in ("http", "https"):
        return url
    if not url or url.startswith("?"):
        return base_url + url
    if url.startswith("//"):
        return f"{base_url.partition(':')[0]}:{url}"
    return f"{base_url.rstrip('/')}/{url.lstrip('/')}"


def _pairs(params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in params.items():
        for item in value if isinstance(value, list | tuple) else (value,):
            if item is not None:
                yield name, str(item).lower() if isinstance(item, bool) else str(item)


def _merge(base: Mapping[str, str], over: Mapping[str, str]) -> dict[str, str]:
    merged = {name: base[name] for name in _kept(tuple(base), tuple(over))}
    merged.update(over)
    return merged


@lru_cache(maxsize=256)
def _kept(names: tuple[str, ...], replaced: tuple[str, ...]) -> tuple[str, ...]:
    """The names that are not replaced. They are the same for every request of a client, or nearly so."""
    lower = {name.lower() for name in replaced}
    return tuple(name for name in names if name.lower() not in lower)
