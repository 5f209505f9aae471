"""Rate budgets that a client holds together with the other clients of its account, in this process and in others.

Requests wait here as in `limits`; one thread of the client's own talks to the other clients (`services.Turns`): it reserves starts in
stretches, keeps the places for requests under way, and hears of pauses. A request itself never waits for a database's lock.
"""

import copy
import math
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from muxly_dagster.errors import MuxlyError
from muxly_dagster.http.limits import Budget, Budgets, Limit, Stopped
from muxly_dagster.services import Grant, Rate, Turns, Used

_TICK = 0.25
"""Seconds between two looks at what the others do, while requests run or wait."""

_AGAIN = 0.1
"""Seconds until one who waits for a place asks again."""

_PARTING = 5.0
"""Seconds that closing waits for what is held to be given back; by then it has run out by itself (`state.turns.LEASE`)."""


class _Lane:
    """The requests that are covered by the same rates, and the starts that are reserved for them."""

    def __init__(self, rates: tuple[Rate, ...]) -> None:
        self.rates = rates
        self.most = min((max(1, rate.requests // 4) for rate in rates if rate.requests), default=1_000_000)
        self.size = 1
        self.waiting = 0
        self.lacking = False
        self.ask_at = 0.0
        self.grant: Grant | None = None
        self.used, self.last = 0, 0.0

    def opens_at(self, now: float, earliest: float) -> float:
        """When the next reserved start may be made, not before `earliest`; never, where there is none."""
        grant = self.grant
        if grant is None or self.used >= grant.count or max(now, earliest) > grant.closes:
            return math.inf
        return max(grant.opens, earliest)

    def take(self, now: float) -> None:
        self.used, self.last = self.used + 1, now

    def wanted(self) -> int:
        """How many starts to reserve: as many as were made in the last stretch, and twice as many where that was too few."""
        if self.grant is not None and self.grant.count:
            self.size = self.size * 2 if self.used >= self.grant.count else max(1, self.used)
        self.size = min(self.size, self.most)
        return max(self.size, min(self.waiting, self.most))

    def left_over(self, now: float) -> bool:
        return self.grant is not None and self.used < self.grant.count and now > self.grant.closes

    def account_for(self) -> Used | None:
        """What became of the last grant, told once."""
        grant, self.grant = self.grant, None
        return Used(grant.id, self.used, self.last) if grant is not None and grant.count else None


class _Places:
    """The places for requests under way that this client has of one budget."""

    def __init__(self, name: str, budget: Budget, most: int) -> None:
        self.name, self.budget, self.most = name, budget, most
        self.waiting = self.peak = self.wanted = self.may = 0
        self.until = self.next_at = 0.0

    def has_room(self, now: float) -> bool:
        return self.budget.running < self.may and now < self.until

    def come(self) -> None:
        self.waiting += 1
        self.peak = max(self.peak, self.budget.running + self.waiting)
        if self.peak > self.wanted and self.wanted < self.most:
            self.next_at = min(self.next_at, time.monotonic())


class SharedBudgets(Budgets):
    """See the module. The budgets of the account are named by the account and by what each limit says."""

    def __init__(self, limits: Sequence[Limit], base_path: str, turns: Turns, account: str) -> None:
        super().__init__(limits, base_path)
        self._turns = turns
        self._holder = uuid.uuid4().hex[:16]
        self._due = threading.Condition(self._lock)
        self._names = {budget: f"{account}\n{limit.model_dump_json()}" for budget, limit in zip(self._budgets, limits, strict=True)}
        self._places = {b: _Places(self._names[b], b, b.concurrency) for b in self._budgets if b.concurrency}
        self._lanes: dict[tuple[Budget, ...], _Lane] = {}
        self._pauses: list[tuple[list[str], float]] = []
        self._look_at = 0.0
        self._waiting = 0
        self._failure: Exception | None = None
        self._keeper: threading.Thread | None = None
        self._closing = self._idle = False

    # ---- what requests do ------------------------------------------------------------------------------------------

    def start(self, path: str, stop: threading.Event) -> list[Budget]:
        """As in Budgets; raises what the other clients cannot be asked for as well (RetryLater)."""
        covering = self._covering(path)
        mine = [self._whole, *covering]
        if not covering:
            return super().start(path, stop)
        with self._changed:
            lane, places = self._lane(covering), [self._places[b] for b in covering if b in self._places]
            self._enter(lane, places)
            try:
                while True:
                    if stop.is_set() or self._closing:
                        raise Stopped
                    if self._failure is not None:
                        raise copy.copy(self._failure)  # each thread's own: it is given a traceback
                    now = time.monotonic()
                    opens_at = max(budget.opens_at() for budget in mine)
                    has_room = all(p.has_room(now) for p in places)
                    if lane is not None:
                        opens_at = lane.opens_at(now, opens_at)
                        lane.lacking = lane.lacking or (has_room and opens_at == math.inf)
                    if has_room and opens_at <= now:
                        break
                    if self._idle or opens_at == math.inf or any(p.next_at <= now for p in places):
                        self._due.notify()
                    self._changed.wait(opens_at - now if has_room and opens_at < math.inf else None)
                for budget in mine:
                    budget.take(now)
                if lane is not None:
                    lane.take(now)
            finally:
                self._leave(lane, places)
        return mine

    def pause(self, path: str, seconds: float) -> None:
        """As in Budgets, and for every other client of the account."""
        super().pause(path, seconds)
        with self._changed:
            if names := [self._names[b] for b in self._blamed(path) if b in self._names]:
                self._pauses.append((names, seconds))
                self._due.notify()

    def close(self) -> None:
        """Give back what is held, unless that takes long: a database that is locked or gone keeps nobody from ending."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._due.notify()
            keeper = self._keeper
        if keeper is not None:
            keeper.join(_PARTING)

    def _lane(self, covering: list[Budget]) -> _Lane | None:
        key = tuple(covering)
        if key not in self._lanes:
            rates = [Rate(self._names[b], b.spacing, b.started.maxlen or 0, b.window) for b in covering if b.spacing or b.window]
            self._lanes[key] = _Lane(tuple(rates))
        lane = self._lanes[key]
        return lane if lane.rates else None

    def _enter(self, lane: _Lane | None, places: list[_Places]) -> None:
        if self._keeper is None and not self._closing:
            self._keeper = threading.Thread(target=self._keep, name="muxly-turns", daemon=True)
            self._keeper.start()
        if self._waiting == 0:
            self._failure = None
        self._waiting += 1
        if lane is not None:
            lane.waiting += 1
        for p in places:
            p.come()

    def _leave(self, lane: _Lane | None, places: list[_Places]) -> None:
        self._waiting -= 1
        if lane is not None:
            lane.waiting -= 1
        for p in places:
            p.waiting -= 1

    # ---- what the keeper does -------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Do what is due, until the client is closed; a failure is for those who wait."""
        while True:
            with self._changed:
                while not (work := self._work()):
                    if self._closing:
                        break
                    seconds = self._until_due()
                    self._idle = seconds is None
                    self._due.wait(seconds)
                    self._idle = False
                if self._closing:
                    break
            for deed in work:
                try:
                    deed()
                except Exception as error:
                    with self._changed:
                        self._failure = error if self._waiting else None
                        self._changed.notify_all()
        with suppress(MuxlyError):  # what is not given back runs out by itself
            self._give_back()

    def _work(self) -> list[Callable[[], None]]:
        now, work = time.monotonic(), list[Callable[[], None]]()
        for names, seconds in self._pauses:
            work.append(partial(self._turns.pause, names, seconds))
        self._pauses.clear()
        for lane in self._lanes.values():
            if lane.lacking and lane.waiting and now >= lane.ask_at:
                work.append(partial(self._reserve, lane))
            elif lane.left_over(now):
                work.append(partial(self._settle, lane))
        for places in self._places.values():
            if now >= places.next_at and (places.waiting or places.budget.running or places.wanted or places.peak):
                work.append(partial(self._renew, places))
        if now >= self._look_at and self._waiting:
            self._look_at = now + _TICK
            work.append(self._look)
        return work

    def _until_due(self) -> float | None:
        """Seconds until there is something to do; None: until somebody comes."""
        times = [lane.ask_at for lane in self._lanes.values() if lane.lacking and lane.waiting]
        times += [lane.grant.closes for lane in self._lanes.values() if lane.grant is not None and lane.used < lane.grant.count]
        times += [p.next_at for p in self._places.values() if p.waiting or p.budget.running or p.wanted]
        times += [self._look_at] if self._waiting else []
        return max(0.001, min(times) - time.monotonic()) if times else None

    def _reserve(self, lane: _Lane) -> None:
        with self._changed:
            wanted, used = lane.wanted(), lane.account_for()
            lane.ask_at = time.monotonic() + _TICK  # for the case that it fails: the database is not asked without a breath
        grant = self._turns.reserve(lane.rates, wanted, used)
        with self._changed:
            lane.grant, lane.used, lane.ask_at = grant, 0, 0.0 if grant.count else grant.opens
            lane.lacking = grant.count == 0 and lane.waiting > 0
            self._changed.notify_all()

    def _settle(self, lane: _Lane) -> None:
        with self._changed:
            lane.wanted()  # learns from what was left
            used = lane.account_for()
        if used is not None:
            self._turns.settle(lane.rates, used)

    def _renew(self, places: _Places) -> None:
        with self._changed:
            running = places.budget.running
            wanted, places.peak = min(places.most, max(places.peak, running + places.waiting)), 0
        try:
            may, until = self._turns.slots(places.name, places.most, self._holder, running, wanted)
        finally:
            places.next_at = time.monotonic() + _TICK  # also after a failure: the database is not asked without a breath
        with self._changed:
            places.may, places.until, places.wanted = may, until, wanted
            if may < wanted:
                places.next_at = time.monotonic() + _AGAIN
            self._changed.notify_all()

    def _look(self) -> None:
        names = {name: budget for budget, name in self._names.items()}
        for name, until in self._turns.paused(list(names)).items():
            with self._changed:
                names[name].paused_until = max(names[name].paused_until, until)

    def _give_back(self) -> None:
        for lane in self._lanes.values():
            if used := lane.account_for():
                self._turns.settle(lane.rates, used)
        for places in self._places.values():
            if places.wanted:
                self._turns.slots(places.name, places.most, self._holder, 0, 0)
