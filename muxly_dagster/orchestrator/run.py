"""What is told of runs: a run, a line of its log, and what it made of an asset."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["queued", "starting", "started", "success", "failure", "canceling", "canceled"]

ENDED: frozenset[Status] = frozenset({"success", "failure", "canceled"})
"""The statuses of runs that have ended."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run as Dagster's storage remembers it. `job` is empty where somebody launched assets without a job.

    `retry_of` is the run that this one does again, `first` the one that all of its retries go back to.
    """

    id: str
    job: str
    status: Status
    created_at: dt.datetime
    started_at: dt.datetime | None = None
    ended_at: dt.datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    assets: tuple[str, ...] = ()
    retry_of: str = ""
    first: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One line of a run's log. `cursor` is where to go on behind it.

    `level` is debug, info, warning or error; `kind` is `log` or Dagster's event type; `error` is a stack trace, empty where the message
    says it all.
    """

    cursor: str
    at: dt.datetime
    level: str
    step: str
    kind: str
    message: str
    asset: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of a run's log. `cursor` is where to go on behind all that was read; `more`: there is more to read, or will be."""

    events: tuple[RunEvent, ...]
    cursor: str
    more: bool


@dataclass(frozen=True, slots=True)
class Materialization:
    """What a run made of one asset: the counts of its receipt (`read`, `changed`, `accepted`, ...) and the seconds it took."""

    asset: str
    at: dt.datetime
    counts: Mapping[str, int | float]
