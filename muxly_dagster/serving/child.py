"""One process of a supervisor while it runs: in a session of its own, known to the sweeper, its lines passed on."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from muxly_dagster.serving.lines import Lines

# The command begins only once the sweeper knows of it: a supervisor that is killed before leaves a shell that reads the end of its input.
_WAITING = 'read -r go || exit 1; exec "$@" < /dev/null'


class Sweeper:
    """The process that ends what is left when this one is killed. Started anew, with all it must know, if somebody ends it."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process = self._started()

    def begins(self, pid: int) -> None:
        """Know of a process group."""
        self._groups.add(pid)
        self._tell(f"+{pid}")

    def ended(self, pid: int) -> None:
        """Forget it."""
        self._groups.discard(pid)
        self._tell(f"-{pid}")

    def look(self) -> None:
        """See that it still lives."""
        if self._process.poll() is not None:
            self._process = self._started()
            for pid in self._groups:
                self._tell(f"+{pid}")

    def close(self) -> None:
        """Let it end; it ends what is left first."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _started(self) -> "subprocess.Popen[str]":
        script = Path(__file__).with_name("sweeper.py")
        command = [sys.executable, "-I", "-S", str(script)]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, text=True, bufsize=1, start_new_session=True)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError:  # it was ended: `look` starts another one, which is told everything
            return


class Child:
    """A process group, by the process that leads it."""

    def __init__(
        self, name: str, command: Sequence[str], environ: Mapping[str, str], lines: Lines, sweeper: Sweeper, fds: Sequence[int] = ()
    ) -> None:
        self.name, self._sweeper = name, sweeper
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WAITING, name, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            pass_fds=tuple(fds),
            start_new_session=True,  # Ctrl-C then reaches it by way of us alone, and what it starts can be ended with it
        )
        self._swept = False
        sweeper.begins(self.pid)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(b"go\n")
            self._process.stdin.close()
        self._reader = threading.Thread(target=self._pass_on, args=(lines,), name=f"lines of {name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id, which is that of the group too."""
        return self._process.pid

    def code(self) -> int | None:
        """How it ended: its exit code, or the negative number of a signal; None while it runs."""
        return self._process.poll()

    def ask(self) -> None:
        """Ask the leading process to end, which sees to its own."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def ask_all(self) -> None:
        """Ask every process of the group to end."""
        self._send(signal.SIGTERM)

    def sweep(self) -> None:
        """End whatever is left of the group, now."""
        if self._swept:
            return
        self._send(signal.SIGKILL)
        self._process.wait()
        self._reader.join(timeout=2.0)
        self._swept = True
        self._sweeper.ended(self.pid)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _pass_on(self, lines: Lines) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as out:
            for line in out:
                lines.heard(self.name, line.decode("utf-8", "replace"))
