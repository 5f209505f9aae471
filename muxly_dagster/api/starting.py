"""Asks Dagster for runs behind the answers: a start lies in the state by then, so what fails here is left to the sensor `muxly_starts`."""

import datetime as dt
import logging
from concurrent.futures import ThreadPoolExecutor

from muxly_dagster.assembly.tags import read_selection
from muxly_dagster.errors import BusyError, MuxlyError
from muxly_dagster.orchestrator import Orchestrator
from muxly_dagster.state import START, Start, State

_log = logging.getLogger("muxly.api")

_AT_ONCE = 4


class Starting:
    """Submits starts, a few at a time."""

    def __init__(self, state: State, orchestrator: Orchestrator) -> None:
        self._state, self._orchestrator = state, orchestrator
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="muxly-starting")

    def soon(self, start: Start) -> None:
        """Submit a start in the background."""
        try:
            self._threads.submit(self._submit, start)
        except RuntimeError:  # the API is closing
            _log.info("the start %s of %s is left to the sensor", start.id, start.job)

    def submit(self, start: Start) -> bool:
        """Ask Dagster for the run of a start that is in the state; False where somebody else does, or a run of its job is under way.

        Raises what the orchestrator raises; the start is due again then.
        """
        if start.cause == "webhook" and self._under_way(start.job):
            return False
        if not self._state.starts.submitted(start.id, dt.datetime.now(dt.UTC)):
            return False
        try:
            self._orchestrator.submit(start.job, start.id, {**start.tags, START: start.id}, read_selection(start.tags))
        except Exception:
            self._state.starts.put_back(start.id)
            raise
        return True

    def close(self) -> None:
        """Finish what is being submitted, and leave the rest to the sensor."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _submit(self, start: Start) -> None:
        try:
            self.submit(start)
        except MuxlyError as error:
            _log.warning("Dagster was not asked for a run of %s, the sensor will: %s", start.job, error)
        except Exception:
            _log.exception("Dagster was not asked for a run of %s, the sensor will", start.job)

    def _under_way(self, job: str) -> bool:
        """Whether a run of the job holds its lock. What waits for it is submitted by the sensor when it has ended."""
        try:
            with self._state.lock(f"job.{job}"):
                return False
        except BusyError:
            return True
