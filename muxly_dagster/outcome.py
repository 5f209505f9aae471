"""What one asset's run did, in numbers that everybody reports alike: the CLI's table, Dagster's metadata, the tests."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Progress = Callable[[str, int], None]
"""Called with an asset's name and the number of records it has read so far in this run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Counts of one run of one asset. For a delivery, read = accepted + refused + unrouted; for the others only read and changed count.

    `refused` of a pull counts the records in quarantine. `metadata` is JSON for Dagster and people (receipt, schema changes).
    """

    asset: str
    read: int = 0
    changed: int = 0
    accepted: int = 0
    refused: int = 0
    unrouted: int = 0
    seconds: float = 0.0
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Watch:
    """Somebody who looks on while assets run in this process: hears of progress, collects outcomes, and says how to run.

    `from_start` forgets cursors and offsets; `patient` False makes a step fail at once where it would wait and try again: somebody is
    looking on. `past_guard` lets deliveries do what their guards would stop.
    """

    progress: Progress | None = None
    from_start: bool = False
    patient: bool = True
    past_guard: bool = False
    outcomes: list[Outcome] = field(default_factory=list)
