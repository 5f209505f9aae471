"""Lets Dagster load the project anew, behind the answers of the API; a code server that is away is asked again for a few minutes."""

import logging
import threading

from muxly_dagster.errors import MuxlyError, RetryLater
from muxly_dagster.orchestrator import Orchestrator

_log = logging.getLogger("muxly.api")

_WAITS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 60.0, 60.0)
"""Seconds between tries. A server that is started later loads the project as it is then."""


class Reloading:
    """One reload at a time; what changes while one is under way is loaded by another one behind it."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._wanted = False
        self._thread: threading.Thread | None = None

    def soon(self) -> None:
        """Reload in the background."""
        with self._lock:
            self._wanted = True
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._work, name="muxly-reloading", daemon=True)
                self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether Dagster has still to load a change."""
        with self._lock:
            return self._thread is not None

    def close(self) -> None:
        """Try no more; a reload that is under way ends first."""
        self._ended.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._wanted or self._ended.is_set():
                    self._thread = None
                    return
                self._wanted = False
            self._reload()

    def _reload(self) -> None:
        for wait in (*_WAITS, None):
            try:
                self._orchestrator.reload()
                return
            except RetryLater as error:
                if wait is None:
                    _log.warning("Dagster has not loaded the change, and is not asked again: %s", error)
                elif self._ended.wait(wait):
                    return
            except MuxlyError as error:
                _log.warning("Dagster cannot load the project: %s", error)
                return
            except Exception:
                _log.exception("Dagster has not loaded the change")
                return
