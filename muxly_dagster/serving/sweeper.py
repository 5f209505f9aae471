"""Ends what a supervisor leaves behind when it is killed. A script of its own, started with `python -I -S`; standard library alone.

Standard input says which process groups there are, one a line: `+PID` for one that was started, `-PID` for one that has ended. When it
closes, the supervisor is gone, whatever became of it, and every group that is left is asked to end, then made to.
"""

import contextlib
import os
import signal
import sys
import time

_SECONDS_TO_END = 8.0
_SECONDS_BETWEEN_LOOKS = 0.1


def main() -> None:
    """Listen, then sweep."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    while line := sys.stdin.readline():
        pid = int(line[1:])
        groups.add(pid) if line.startswith("+") else groups.discard(pid)
    _send(groups, signal.SIGTERM)
    deadline = time.monotonic() + _SECONDS_TO_END
    while groups and time.monotonic() < deadline:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        _send(groups, 0)
    _send(groups, signal.SIGKILL)


def _send(groups: set[int], number: int) -> None:
    """Send a signal to each; those that are gone are forgotten."""
    for group in list(groups):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            groups.discard(group)
        except PermissionError:  # macOS says so of a group of zombies
            continue


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
