"""A child process that delivers a table bit by bit, and may be killed at any of the steps in which something becomes true."""

import json
import os
import random
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from muxly_dagster.destination import Destination
from muxly_dagster.destinations.file import File
from muxly_dagster.destinations.s3 import S3
from muxly_dagster.destinations.s3.amazon import Amazon
from muxly_dagster.testing import changes, delivery

RECORDS = 90
ROWS = changes([{"id": n, "city": "Rome" if n % 3 else "Paris", "note": "x" * n} for n in range(RECORDS)])

_KINDS: Mapping[str, type[Destination]] = {"file": File, "s3": S3}
_STEPS: tuple[tuple[Any, str], ...] = (
    (os, "rename"),
    (os, "unlink"),
    (os, "rmdir"),
    (os, "mkdir"),
    (os, "fsync"),
    (os, "utime"),
    (Amazon, "put"),
    (Amazon, "delete"),
    (Amazon, "names"),
)


def offset(folder: Path) -> int:
    """How far deliveries are confirmed."""
    ledger = folder / "ledger.json"
    return int(json.loads(ledger.read_text())) if ledger.exists() else 0


def run(folder: Path, kind: str, fields: Mapping[str, Any], seed: int, dies_at: int | None = None) -> None:
    """Deliver what is not confirmed yet, in stretches of random size. Dies by SIGKILL at the n-th step, before or after it."""
    destination = _KINDS[kind](**fields)
    sizes = random.Random(seed)
    if dies_at is not None:
        _lay_mines(dies_at, after=bool(seed % 2))
    while (after := offset(folder)) < RECORDS:
        upto = min(RECORDS, after + sizes.choice((1, 1, 2, 3, 5, 9)))
        destination.deliver(delivery(ROWS.slice(after, upto - after), after=after, upto=upto))
        _confirm(folder, upto)


def _confirm(folder: Path, upto: int) -> None:
    aside = folder / "ledger.aside"
    aside.write_text(json.dumps(upto))
    aside.replace(folder / "ledger.json")


def _lay_mines(dies_at: int, *, after: bool) -> None:
    steps = 0

    def deadly(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            mine = steps == dies_at
            if mine and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return original(*arguments, **options)
            finally:
                if mine:
                    os.kill(os.getpid(), signal.SIGKILL)

        return step

    for owner, name in _STEPS:
        setattr(owner, name, deadly(getattr(owner, name)))
