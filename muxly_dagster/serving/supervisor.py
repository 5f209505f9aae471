"""Starts processes, starts again what dies, and stops all of them together."""

import queue
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from muxly_dagster.errors import MuxlyError
from muxly_dagster.serving.child import Child, Sweeper
from muxly_dagster.serving.lines import Lines
from muxly_dagster.serving.processes import Process

_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_BETWEEN_PROBES = 0.25
_SECONDS_TO_BE_READY = 180.0
_SECONDS_TO_END = 15.0
"""For the leading process, which ends what it is at."""
_SECONDS_TO_GIVE_UP = 5.0
"""For everything else of its group, which is interrupted then."""
_LONGEST_PAUSE = 30.0
_MOST_DEATHS = 5
_SECONDS_OF_HEALTH = 60.0
"""A process that has lived this long counts as well again."""
_CONFIGURATION = 2
"""The exit code of a command whose configuration is wrong."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class _Place:
    """A process and what became of it so far."""

    process: Process
    child: Child | None = None
    ready: bool = False
    started_at: float = 0.0
    probed_at: float = 0.0
    due_at: float = 0.0
    deaths: int = 0
    starts: int = 0
    held: bool = False


@dataclass
class Supervisor:
    """Runs processes until it is told to stop. `patient`: a process whose configuration is wrong waits for `released` instead of dying on.

    `when_ready` is called once, when everything answers.
    """

    processes: Sequence[Process]
    lines: Lines
    when_ready: Callable[[], None] = lambda: None
    patient: bool = False
    _calls: "queue.SimpleQueue[Callable[[], None]]" = field(default_factory=queue.SimpleQueue)
    _signals: int = 0

    def run(self) -> None:
        """Until a signal asks to end: the second one ends everything at once. Raises MuxlyError for a process that keeps dying.

        Call it in the main thread, where signals arrive.
        """
        before = {number: signal.signal(number, self._signalled) for number in _SIGNALS}
        sweeper = Sweeper()
        places = {process.name: _Place(process) for process in self.processes}
        try:
            self._watch(places, sweeper)
        finally:
            self._stop(places)
            sweeper.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    def released(self) -> None:
        """Start what waits for a configuration that is right. May be called in any thread."""
        self._calls.put(lambda: None)

    # ---- while it runs -----------------------------------------------------------------------------------------------

    def _watch(self, places: Mapping[str, _Place], sweeper: Sweeper) -> None:
        told = False
        while not self._signals:
            sweeper.look()
            released = False
            while not self._calls.empty():
                self._calls.get()()
                released = True
            for place in places.values():
                if released:
                    place.held = False
                self._look_at(place, places, sweeper)
            if not told and all(place.ready for place in places.values()):
                told = True
                self.when_ready()
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _look_at(self, place: _Place, places: Mapping[str, _Place], sweeper: Sweeper) -> None:
        now = time.monotonic()
        if place.child is None:
            if not place.held and now >= place.due_at and all(places[name].ready for name in place.process.after if name in places):
                self._start(place, sweeper)
            return
        code = place.child.code()
        if code is not None:
            self._bury(place, code)
            return
        if not place.ready and now - place.probed_at > _SECONDS_BETWEEN_PROBES:
            place.ready = place.process.answers is None or place.process.answers()
            place.probed_at = time.monotonic()
            if place.ready and place.starts > 1:
                self.lines.say(f"{place.process.name} is up again")
            if not place.ready and now - place.started_at > _SECONDS_TO_BE_READY:
                what = f"{place.process.name} does not answer {_SECONDS_TO_BE_READY:.0f} seconds after it was started"
                raise MuxlyError(what, do="read its lines above; `muxly doctor` checks the rest")
        if place.deaths and now - place.started_at > _SECONDS_OF_HEALTH:
            place.deaths = 0

    def _start(self, place: _Place, sweeper: Sweeper) -> None:
        process = place.process
        if place.starts and process.again:
            self._run_before(process)
        place.child = Child(process.name, process.command, process.environ, self.lines, sweeper, process.fds)
        place.started_at, place.probed_at, place.ready = time.monotonic(), 0.0, False
        place.starts += 1

    def _run_before(self, process: Process) -> None:
        quiet = subprocess.DEVNULL
        running = subprocess.Popen(
            process.again, env=dict(process.environ), stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        while running.poll() is None and not self._signals:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if running.poll() is None:
            running.kill()
            running.wait()

    def _bury(self, place: _Place, code: int) -> None:
        """Say that a process died, and when it is started again. Raises MuxlyError for one that keeps dying."""
        assert place.child is not None
        place.child.sweep()
        name, place.child, place.ready = place.process.name, None, False
        how = _how(code)
        if self.patient and code == _CONFIGURATION:
            place.held = True
            self.lines.say(f"{name} {how}: it cannot begin with this configuration, and waits until that changes")
            return
        place.deaths += 1
        if place.deaths >= _MOST_DEATHS:
            last = "\n".join(f"  {line}" for line in self.lines.last(name))
            what = f"{name} keeps ending: it {how}, for the {place.deaths}th time in a row" + (f". It said last:\n{last}" if last else "")
            raise MuxlyError(what, do="set right what it says; `muxly doctor` checks everything else")
        pause = min(_LONGEST_PAUSE, 2.0 ** (place.deaths - 1) / 2)
        place.due_at = time.monotonic() + pause
        self.lines.say(f"{name} {how}; it is started again in {pause:g} seconds")

    # ---- the end -----------------------------------------------------------------------------------------------------

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _stop(self, places: Mapping[str, _Place]) -> None:
        """Those that lean on others first. A second signal while it goes on ends everything at once."""
        asked = self._signals
        running = [place for place in places.values() if place.child is not None]
        if running:
            self.lines.say(f"stopping {', '.join(place.process.name for place in running)}; Ctrl-C again stops at once")
        needed = {name for place in running for name in place.process.after}
        for together in ([p for p in running if p.process.name not in needed], [p for p in running if p.process.name in needed]):
            children = [place.child for place in together if place.child is not None]
            for child in children:
                child.ask()
            if not self._gone(children, _SECONDS_TO_END, asked):
                names = ", ".join(child.name for child in children if child.code() is None)
                if self._signals == asked:
                    self.lines.say(f"{names} still at work, and interrupted now; what was stored stays")
                for child in children:
                    child.ask_all()
                self._gone(children, _SECONDS_TO_GIVE_UP, asked)
            for child in children:
                child.sweep()
        if running:
            self.lines.say("stopped")

    def _gone(self, children: Sequence[Child], seconds: float, asked: int) -> bool:
        """Whether all ended within these seconds, and before another signal came."""
        deadline = time.monotonic() + seconds
        while any(child.code() is None for child in children):
            if self._signals > asked or time.monotonic() > deadline:
                return False
            time.sleep(_SECONDS_BETWEEN_LOOKS / 2)
        return True


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
