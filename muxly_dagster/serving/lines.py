"""What the processes print, as lines that people read: whose line it is in front, Dagster's own noise left out."""

import json
import os
import re
import sys
import threading
import zlib
from collections import deque
from collections.abc import Mapping
from typing import TextIO

OURS = "muxly"
"""Whose the supervisor's own lines are."""

_WIDTH = 6
_LEAST = {"info": 20, "warning": 30, "error": 40, "critical": 50}
_STEERING = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-_])|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COLOURS = {OURS: "1", "api": "36", "web": "35", "daemon": "34", "code": "32", "demo": "33"}
_KEPT = 20

_LOGGED = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4} - (?P<logger>[\w.-]+) - (?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) - (?P<text>.*)$"
)
"""A line of Dagster's console logger (dagster._utils.log)."""

_OF_RUN = re.compile(r"^(?P<job>\S+) - (?P<run>[0-9a-f]{8})-[0-9a-f-]{27} - (?:\d+ - )?(?P<rest>.*)$")
_EVENT = re.compile(r"^(?:(?P<step>\S+) - )?(?P<event>[A-Z][A-Z_]+) - (?P<text>.*)$")
_EVENTS = {"RUN_START": "began", "RUN_SUCCESS": "went well", "RUN_CANCELED": "was cancelled"}
_FAILED = ("RUN_FAILURE", "STEP_FAILURE")
_ASSET_RUN = "__ASSET_JOB"

_UNREACHABLE = "DagsterUserCodeUnreachableError"
"""Said by the daemon, over and over, while the code server is started again, which is told anyway; also in the text of another error."""

_REPRESENTED = re.compile(r"^\w+\((?P<quote>['\"])(?P<text>.*)(?P=quote)\)$", re.DOTALL)


class Lines:
    """Prints lines one at a time, whichever thread brings them; remembers the last ones of each process."""

    def __init__(self, out: TextIO | None = None, *, verbose: bool = False) -> None:
        self._out: TextIO | None = out or sys.stderr
        self._verbose = verbose
        self._colours = self._out.isatty() and not os.environ.get("NO_COLOR")
        self._lock = threading.Lock()
        self._last: dict[str, deque[str]] = {}

    def say(self, text: str, *, whose: str = OURS) -> None:
        """Lines of our own."""
        for line in text.splitlines():
            self._print(whose, line)

    def heard(self, whose: str, line: str) -> None:
        """A line that a process printed; what only says that all is well is left out."""
        line = _STEERING.sub("", line).rstrip()
        if not line:
            return
        told = line if self._verbose else calmed(line)
        for each in told.splitlines():
            with self._lock:
                self._last.setdefault(whose, deque(maxlen=_KEPT)).append(each)
            self._print(whose, each)

    def last(self, whose: str, count: int = 5) -> list[str]:
        """The last lines of a process."""
        with self._lock:
            return list(self._last.get(whose, ()))[-count:]

    def _print(self, whose: str, line: str) -> None:
        head = f"{whose:<{_WIDTH}} │ "
        if self._colours:
            colour = _COLOURS.get(whose, str(31 + zlib.crc32(whose.encode()) % 6))
            head = f"\x1b[{colour}m{head}\x1b[0m"
        with self._lock:
            if self._out is None:
                return
            try:
                self._out.write(f"{head}{_STEERING.sub('', line)}\n")
                self._out.flush()
            except (OSError, ValueError):
                # Whoever read our output is gone. The processes go on, and their pipes must be emptied all the same.
                self._out = None


def calmed(line: str) -> str:
    """What a person wants to know of a line; empty where that is nothing."""
    if line.startswith("{"):
        return _of_json(line)
    logged = _LOGGED.match(line)
    if logged is None:
        return line
    of_run = _OF_RUN.match(logged["text"])
    if of_run is not None:
        return _of_run(logged["level"], of_run)
    return "" if logged["level"] in ("DEBUG", "INFO") else f"{logged['level'].lower()}: {logged['text']}"


def _of_json(line: str) -> str:
    """A line of Dagster's JSON log: warnings and worse, with what was raised."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, Mapping) or "event" not in entry:
        return line
    level = str(entry.get("level", "info"))
    if _LEAST.get(level, 0) < _LEAST["warning"]:
        return ""
    raised = entry.get("exc_info")
    kind, what = (str(each) for each in raised[:2]) if isinstance(raised, list) and len(raised) > 1 else ("", "")
    if _UNREACHABLE in kind or _UNREACHABLE in what:
        return ""
    found = _REPRESENTED.match(what)
    return f"{level}: {entry['event']}" + (f": {found['text'] if found else what}" if what else "")


def _of_run(level: str, found: re.Match[str]) -> str:
    """A line about a run: how it began and ended, what steps wrote by themselves, and what went wrong."""
    job = "assets" if found["job"].startswith(_ASSET_RUN) else found["job"]
    name = f"{job} ({found['run']})"
    event = _EVENT.match(found["rest"])
    if event is None:
        return "" if level == "DEBUG" else f"{name}: {found['rest']}"
    if event["event"] in _EVENTS:
        return f"{name} {_EVENTS[event['event']]}"
    if event["event"] in _FAILED:
        step = f" at {event['step'].replace('__', '.')}" if event["step"] else ""
        return f"{name} failed{step}: {event['text']}"
    return "" if level in ("DEBUG", "INFO") else f"{name}: {event['text']}"
