"""What the stand-ins of sources share that are posted to: nobody answers them with a status, and there is nothing to sign in with."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from muxly_dagster.errors import RetryLater


class Fragile:
    """Fails after so many looks."""

    left = 1 << 30

    def look(self) -> None:
        """Raises RetryLater once there were too many."""
        self.left -= 1
        if self.left < 0:
            raise RetryLater("what was posted is away", do="wait until the database is back")


class Posted:
    """The greater part of a Provider. `kept` holds what was posted."""

    secrets: Sequence[str] = ()

    def __init__(self, kept: Fragile) -> None:
        self.kept = kept
        self._more: dict[str, Any] = {}

    def record(self, number: int, text: str) -> bytes:
        """As it is posted."""
        return orjson.dumps({"number": number, "text": text, **self._more})

    def delete(self, number: int) -> None:
        """Nobody hears of it."""

    def number(self, row: Mapping[str, Any]) -> int:
        return int(row["number"])

    def text(self, row: Mapping[str, Any]) -> str:
        return str(row["text"])

    def drift(self) -> None:
        self._more = {"extra": {"a": 1}}

    def fail_once(self, status: int) -> None:
        raise AssertionError("nobody answers with a status")

    def break_after(self, requests: int) -> None:
        self.kept.left = requests

    def mend(self) -> None:
        self.kept.left = 1 << 30

    def expire(self) -> None:
        raise AssertionError("there are no tokens of changes")
