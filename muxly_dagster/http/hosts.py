"""Where a client may go: which hosts it may ask, which redirects it may follow, and where its credentials may be seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

_PORTS = {"http": 80, "https": 443}


def address(url: SplitResult) -> tuple[str, int | None]:
    """Host and port of a URL. Raises ValueError for a port that is none."""
    return (url.hostname or "").lower(), url.port or _PORTS.get(url.scheme)


def same_place(a: SplitResult, b: SplitResult) -> bool:
    """Whether credentials for `a` may be shown to `b`: the same host and port, or the same host by https instead of http."""
    if a.scheme == "https" and b.scheme != "https":
        return False
    upgraded = a.scheme == "http" and b.scheme == "https" and address(a)[0] == address(b)[0]
    return upgraded or address(a) == address(b)


@dataclass(frozen=True, slots=True)
class Reach:
    """The places a client may go. `hosts` lists names, `name:port` or patterns such as `*.example.com`; None: the base URL's only."""

    base: SplitResult | None
    hosts: tuple[str, ...] | None

    def refusal(self, url: SplitResult, came_from: SplitResult | None = None) -> str:
        """Why the URL may not be asked, as the end of a sentence; empty when it may."""
        if url.scheme not in _PORTS or not url.hostname:
            return f"which is not an http or https address ({url.scheme or 'no scheme'})"
        if "\\" in url.netloc:
            # To what sends the request it is a slash (WHATWG URL, 4.4), so the host would be another one than the one looked at here.
            return "whose host holds a backslash, which programs read in different ways"
        start = came_from or self.base
        if start and start.scheme == "https" and url.scheme == "http":
            return f"at {url.hostname}, which would leave https for plain http"
        if start is None and self.hosts is None:
            return ""
        if (start and same_place(start, url)) or (self.base and same_place(self.base, url)) or self._listed(url):
            return ""
        host, port = address(url)
        listed = f"hosts allows {', '.join(self.hosts)}" if self.hosts else "only the base URL's own host is allowed"
        return f"at {host if port == _PORTS[url.scheme] else f'{host}:{port}'} ({listed})"

    def _listed(self, url: SplitResult) -> bool:
        host, port = address(url)
        return any(fnmatchcase(host, entry.lower()) or f"{host}:{port}" == entry.lower() for entry in self.hosts or ())


def merge_query(url: str, params: Sequence[tuple[str, str]]) -> str:
    """The URL with parameters added to its query, and without a fragment."""
    url = url.partition("#")[0]
    if not params:
        return url
    query = "&".join([f"{_quoted(name)}={_quoted(value)}" for name, value in params])
    return f"{url}{'&' if '?' in url else '?'}{query}"


def _quoted(text: str) -> str:
    return text if text.isalnum() and text.isascii() else quote(text, safe="")


def without_params(url: str, names: frozenset[str], values: frozenset[str]) -> str:
    """The URL without the query parameters that have one of these names or values."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(name, value) for name, value in pairs if name not in names and value not in values]
    return url if len(kept) == len(pairs) else parts._replace(query=urlencode(kept, quote_via=quote)).geturl()
