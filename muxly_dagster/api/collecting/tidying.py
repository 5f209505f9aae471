"""Keeps the inbox tidy beside the requests: ids that are remembered get their place, and old ones are forgotten."""

import datetime as dt
import logging
import threading

from muxly_dagster.errors import MuxlyError
from muxly_dagster.state.inbox import SharedInbox

_log = logging.getLogger("muxly.api")

_SECONDS = 60.0


class Tidying:
    """One thread, begun with the first request; looks about once a minute, and when it is told to."""

    def __init__(self, inbox: SharedInbox, remember: dt.timedelta) -> None:
        self._inbox, self._remember = inbox, remember
        self._wanted, self._closed = threading.Event(), False
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin, if that was not done before."""
        if self._thread is None and not self._closed:
            thread = threading.Thread(target=self._run, name="muxly-inbox-tidying", daemon=True)
            thread.start()
            self._thread = thread

    def soon(self) -> None:
        """Look now."""
        self._wanted.set()

    def close(self) -> None:
        """Stop; what is left is for the next time."""
        self._closed = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            try:
                self._inbox.tidy(dt.datetime.now(dt.UTC) - self._remember, lambda: self._closed)
            except MuxlyError as error:
                _log.warning("the inbox could not be tidied: %s", error)
            except Exception:
                _log.exception("the inbox could not be tidied")
            if not self._closed:
                self._wanted.wait(_SECONDS)
                self._wanted.clear()
