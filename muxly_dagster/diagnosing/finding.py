"""What a check found, and what all checks look at."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Literal

from muxly_dagster.assembly import Assembly
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `do` says what to do where it is not ok; none of the texts holds a secret."""

    check: str
    status: Status
    what: str = ""
    do: str = ""


@dataclass(frozen=True)
class Subject:
    """One Muxly. `runtime` is its open project; without one, `trouble` says why, and what can be looked at is looked at all the same, with
    the `declared` project where at least that is sound.

    `dagster_home` is where Dagster keeps its things, `code_server` the address where its code server should listen (none: it is found by
    what is running). `ports` are those that should answer or be free, by what listens there. `offline` asks no source and no destination.
    """

    settings: Settings
    environ: Mapping[str, str] = field(repr=False)
    dagster_home: Path
    runtime: Runtime | None = None
    trouble: MuxlyError | None = None
    code_server: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    offline: bool = False
    declared: Assembly | None = None

    @property
    def assembly(self) -> Assembly | None:
        """The project as it is in use, or as it is declared."""
        return self.runtime.assembly if self.runtime is not None else self.declared


Check = Callable[[Subject], Sequence[Finding]]
"""Looks at something. What it raises as a MuxlyError or an OSError is a finding too."""


def all_of(jobs: Mapping[str, tuple[Callable[[], Sequence[Finding]], float]]) -> list[Finding]:
    """Run everything at the same time, each for no longer than its seconds; in the order given."""
    begun = time.monotonic()
    futures = {name: _beside(name, job) for name, (job, _) in jobs.items()}
    found: list[Finding] = []
    for name, future in futures.items():
        seconds = jobs[name][1]
        wait([future], timeout=max(0.0, begun + seconds - time.monotonic()))
        if future.done():
            found += future.result()
        else:
            do = "see whether what it asks is up and can be reached from here; a firewall that drops packets looks like this"
            found.append(Finding(name, "failed", f"no answer within {seconds:g} seconds", do))
    return found


def failed(name: str, error: MuxlyError) -> Finding:
    """An error as a finding."""
    what, do = error.what, error.do
    if isinstance(error, ConfigurationError):
        what = "; ".join(str(problem) if problem.file else problem.what for problem in error.problems)
        do = do or next((problem.do for problem in error.problems if problem.do and not problem.file), "") or "correct what it says"
    return Finding(name, "failed", f"{error.where}: {what}" if error.where and error.where not in what else what, do)


def _beside(name: str, job: Callable[[], Sequence[Finding]]) -> "Future[Sequence[Finding]]":
    """In a thread of its own, which nobody waits for when it hangs."""
    future: Future[Sequence[Finding]] = Future()

    def work() -> None:
        try:
            future.set_result(job())
        except MuxlyError as error:
            future.set_result([failed(name, error)])
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            what = f"{where}{str(error.strerror or error).lower()}"
            future.set_result([Finding(name, "failed", what, "check the permissions and the free space")])
        except Exception as error:  # a check must never end the others
            what = f"the check itself failed: {type(error).__name__}"
            future.set_result([Finding(name, "failed", what, "please report it, with what `muxly doctor` printed")])

    Thread(target=work, name=f"check {name}", daemon=True).start()
    return future
