"""One open connection to Dagster: its instance, and the code server that has the project loaded."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Status = Literal["queued", "starting", "started", "success", "failure", "canceling", "canceled"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run as Dagster's storage remembers it. `job` is empty where somebody launched assets without a job."""

    id: str
    job: str
    status: Status
    created_at: dt.datetime
    started_at: dt.datetime | None = None
    ended_at: dt.datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    assets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One line of a run's log. `cursor` is where to go on behind it."""

    cursor: str
    at: dt.datetime
    level: str
    step: str
    kind: str
    message: str


class Orchestrator:
    """Opened when it is first needed: an API process starts although Dagster is down."""

    def __init__(self, home: Path, code_server: str = "") -> None:
        self._home, self._code_server = home, code_server

    def submit(self, job: str, run_id: str, tags: Mapping[str, str], select: Sequence[str] = ()) -> None:
        """Start a run of a job (of some of its assets only) at once, under this id; a run that has the id already is left alone.

        Raises ConfigurationError for a job that Dagster does not know, RetryLater where Dagster cannot be reached.
        """
        raise NotImplementedError

    def runs(self, *, job: str = "", statuses: Sequence[Status] = (), after: str = "", limit: int = 100) -> list[Run]:
        """Runs, the newest first, behind the run with the id `after`."""
        raise NotImplementedError

    def run(self, run_id: str) -> Run | None:
        """One run."""
        raise NotImplementedError

    def cancel(self, run_id: str) -> None:
        """Ask a run to end. Raises ConfigurationError for one that has ended, or is not there."""
        raise NotImplementedError

    def retry(self, run_id: str) -> str:
        """Run what failed of a run again; answers the new run's id. Raises ConfigurationError where there is nothing to retry."""
        raise NotImplementedError

    def events(self, run_id: str, after: str = "", limit: int = 1000) -> list[RunEvent]:
        """The next lines of a run's log."""
        raise NotImplementedError

    def follow(self, run_id: str, after: str = "") -> Iterator[RunEvent | None]:
        """The lines of a run's log as they come, until it has ended; None now and then while there are none."""
        raise NotImplementedError

    def reload(self) -> None:
        """Have the code server load the project anew. Raises RetryLater where it cannot be reached."""
        raise NotImplementedError

    def heartbeats(self) -> Mapping[str, dt.datetime]:
        """When each kind of Dagster's daemon last said that it lives."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what was opened."""
