"""Which addresses the app has, for answers to requests that fit none of them."""

import difflib
import re
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts


@dataclass(frozen=True, slots=True)
class Addresses:
    """All addresses: what they look like, how they are written, and the methods that they know."""

    known: tuple[tuple[re.Pattern[str], str, frozenset[str]], ...]

    def methods(self, path: str) -> list[str]:
        """The methods of a path, OPTIONS last; empty where there is nothing."""
        found: set[str] = set()
        for pattern, _, methods in self.known:
            if pattern.match(path):
                found |= methods
        if "GET" in found:
            found.add("HEAD")
        return [*sorted(found - {"OPTIONS"}), "OPTIONS"] if found else []

    def nearest(self, path: str) -> str:
        """The next step for a path that is nowhere; empty where nothing is near."""
        near = difflib.get_close_matches(path[:200], [written for _, written, _ in self.known], n=1, cutoff=0.7)
        return f"did you mean {near[0]}?" if near else ""


def of(app: FastAPI) -> Addresses:
    """The addresses of an app, which change no more once it answers."""
    found: Addresses | None = getattr(app.state, "addresses", None)
    if found is None:
        found = app.state.addresses = Addresses(tuple(_written(route) for route in iter_route_contexts(app.routes) if route.methods))
    return found


def _written(route: Any) -> tuple[re.Pattern[str], str, frozenset[str]]:
    return route.path_regex, str(route.path_format), frozenset(route.methods)
