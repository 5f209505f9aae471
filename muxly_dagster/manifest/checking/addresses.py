"""Where a manifest's requests may go: addresses held against its `hosts`, and nothing in the clear but on this machine."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from muxly_dagster.manifest.checking.positions import Path

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_EXPRESSION = re.compile(r"\$\{[^{}]*\}")
_FILLED_IN = "filled-in"


def url_mistakes(at: Path, text: str, hosts: list[str]) -> Iterator[tuple[Path, str, str]]:
    """Why an address may not be asked: its path in the file, what is wrong, what to do.

    Of an address that is filled in by the source, only what stands there already can be judged; the rest is when it is known.
    """
    if _EXPRESSION.match(text):
        return
    url = urlsplit(_EXPRESSION.sub(_FILLED_IN, text))
    host = (url.hostname or "").lower()
    if url.scheme not in ("http", "https") or not host:
        yield at, f"{text!r} is no address", "write https://HOST/PATH"
    elif url.scheme == "http" and host not in _LOOPBACK:
        yield at, f"{text!r} would send everything in the clear", "write https:// (http is for this machine only)"
    elif _FILLED_IN not in host and not any(fnmatchcase(host, each.lower()) or url.netloc.lower() == each.lower() for each in hosts):
        yield at, f"the host {host} is not among `hosts`", "add it there"


def request_address_mistakes(at: Path, path: str, hosts: list[str]) -> Iterator[tuple[Path, str, str]]:
    """The same for a request's `path`, which usually is none."""
    if "://" in path:
        yield from url_mistakes(at, path, hosts)
