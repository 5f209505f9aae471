"""How much one request may hold."""

from collections.abc import Mapping
from dataclasses import dataclass

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.measures import parse_size


@dataclass(frozen=True)
class Limits:
    """`body` bytes, as they come and once they are decoded; `items`; bytes of one `event`; `depth` of nesting, 1 for a flat object."""

    body: int = 16 << 20
    items: int = 50_000
    event: int = 1 << 20
    depth: int = 64

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Limits":
        """From MUXLY_COLLECT_BODY, MUXLY_COLLECT_ITEMS, MUXLY_COLLECT_EVENT, MUXLY_COLLECT_DEPTH. Raises ConfigurationError."""
        return cls(
            body=size_of(environ, "MUXLY_COLLECT_BODY", cls.body),
            items=_count(environ, "MUXLY_COLLECT_ITEMS", cls.items, 1_000_000),
            event=size_of(environ, "MUXLY_COLLECT_EVENT", cls.event),
            depth=_count(environ, "MUXLY_COLLECT_DEPTH", cls.depth, 500),  # readers behind the inbox go no further than that
        )


def size_of(environ: Mapping[str, str], name: str, otherwise: int) -> int:
    """A size such as `16MiB` from the environment. Raises ConfigurationError."""
    text = environ.get(name, "")
    if not text:
        return otherwise
    try:
        found = parse_size(text)
    except ValueError:
        found = 0
    if found < 1:
        raise ConfigurationError(f"{name} is {text!r}, which is no size", do="write it like 16MiB or 500MB")
    return found


def _count(environ: Mapping[str, str], name: str, otherwise: int, most: int) -> int:
    text = environ.get(name, "")
    if not text:
        return otherwise
    if not text.isdecimal() or not 1 <= int(text[:10]) <= most:
        raise ConfigurationError(f"{name} is {text!r}, which is no number from 1 to {most}", do=f"write it like {otherwise}")
    return int(text)
