"""The sensor that tells destinations of runs that failed, and of jobs that succeed again."""

import datetime as dt
import hashlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Literal

import dagster as dg
import orjson
from dagster._core.event_api import RunStatusChangeRecordsFilter
from dagster._core.storage.tags import WILL_RETRY_TAG

from muxly_dagster.assembly import Assembly
from muxly_dagster.assembly.notices import delivery_of
from muxly_dagster.assembly.parts import Told
from muxly_dagster.defs.failures import dagster_errors
from muxly_dagster.defs.maintenance import Ours
from muxly_dagster.defs.noticing import Watched, notice_of
from muxly_dagster.defs.resources import MUXLY
from muxly_dagster.destination import Delivery, Destination, Receipt
from muxly_dagster.errors import MuxlyError, RecordRefused, RetryLater

NOTICES = "muxly_notices"
_SENSOR_SECONDS = 15
_SECONDS, _SECONDS_OF_ONE = 30.0, 20.0
"""A sensor has a minute, or Dagster forgets what it did; a destination that answers slowly leaves the rest to the next time."""

_AT_ONCE = 100
_MOST_WAITING = 500
_WAIT = dt.timedelta(seconds=30)
_LONGEST_WAIT = dt.timedelta(hours=1)
_GIVEN_UP_AFTER = dt.timedelta(days=1)

_log = logging.getLogger("muxly.notices")

Turn = Literal["failure", "recovery"]


@dataclass(slots=True)
class Waiting:
    """A notice that a destination is still to get; `at` and `due` are seconds since 1970."""

    run_id: str
    turn: Turn
    seq: int
    to: str
    job: str
    at: float
    due: float = 0.0
    tries: int = 0


@dataclass(slots=True)
class Seen:
    """The sensor's cursor: how far Dagster's log was read, by kind of event, and what is still to be told."""

    upto: dict[str, int] = field(default_factory=dict)
    waiting: list[Waiting] = field(default_factory=list)

    @classmethod
    def read(cls, text: str | None) -> "Seen | None":
        """From Dagster's memory; None where there is nothing yet, or nothing that can be read."""
        try:
            said = orjson.loads(text or "")
            return cls(dict(said["upto"]), [Waiting(**each) for each in said["waiting"]])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return None

    def write(self) -> str:
        """For Dagster's memory."""
        return orjson.dumps(asdict(self)).decode()


_EVENTS: Mapping[Turn, dg.DagsterEventType] = {"failure": dg.DagsterEventType.RUN_FAILURE, "recovery": dg.DagsterEventType.RUN_SUCCESS}


def notices_sensor(assembly: Assembly, ours: Ours, web_url: str = "") -> dg.SensorDefinition | None:
    """The sensor; None where nobody wants to be told.

    It reads Dagster's log from where it stood, so that nothing is missed while the daemon is down and no run is told of twice. A
    destination that is down gets its notices later, in their order, for a day; the others do not wait for it. `web_url` is where people
    find Dagster's UI, for links.
    """
    told: Mapping[str, Told] = assembly.told
    turns: list[Turn] = [turn for turn in _EVENTS if any(_whom(each, turn) for each in told.values())]
    if not turns:
        return None
    watched = Watched(ours, {name.replace(".", "__"): name for name in (*assembly.pulls, *assembly.transforms, *assembly.targets)}, web_url)

    @dg.sensor(
        name=NOTICES,
        minimum_interval_seconds=_SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={MUXLY},
        description="Tells destinations of runs that failed and of jobs that succeed again, as `on_failure` and `on_recovery` say.",
    )
    def notify(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        seen = Seen.read(context.cursor)
        if seen is None:
            return dg.SensorResult(skip_reason="begins with the next run", cursor=Seen(_newest(context.instance)).write())
        for turn in turns:
            seen.waiting += _happened(context.instance, watched, told, turn, seen)
        if len(seen.waiting) > _MOST_WAITING:
            _log.error("%s notices wait for destinations that are down; the oldest are dropped", len(seen.waiting))
            del seen.waiting[:-_MOST_WAITING]
        if not seen.waiting:
            return dg.SensorResult(skip_reason="there is nothing to tell", cursor=seen.write())
        with dagster_errors():
            equipped: Mapping[str, Told] = context.resources.muxly.runtime.assembly.told
        sent = _send(context.instance, watched, equipped, seen)
        return dg.SensorResult(skip_reason=f"{sent} told, {len(seen.waiting)} wait", cursor=seen.write())

    return notify


def _newest(instance: dg.DagsterInstance) -> dict[str, int]:
    """Where the log ends."""
    newest = {turn: instance.fetch_run_status_changes(event, limit=1).records for turn, event in _EVENTS.items()}
    return {turn: records[0].storage_id if records else -1 for turn, records in newest.items()}


def _happened(instance: dg.DagsterInstance, watched: Watched, told: Mapping[str, Told], turn: Turn, seen: Seen) -> Iterator[Waiting]:
    """What there is to tell of the events behind the cursor, which moves on."""
    at = RunStatusChangeRecordsFilter(event_type=_EVENTS[turn], after_storage_id=seen.upto.get(turn, -1))  # type: ignore[arg-type]
    for event in instance.fetch_run_status_changes(at, limit=_AT_ONCE, ascending=True).records:
        seen.upto[turn] = event.storage_id
        run = instance.get_run_by_id(event.run_id)
        if run is None or not watched.ours.owns(run) or run.tags.get(WILL_RETRY_TAG) == "true":
            continue
        job = run.job_name if run.job_name in watched.ours.jobs else ""
        whom = _whom(told.get(job, told[""]), turn)
        if whom and (_turned_bad(instance, run, job) if turn == "failure" else _turned_good(instance, run, job)):
            yield from (Waiting(run.run_id, turn, event.storage_id, name, job, event.timestamp) for name in whom)


def _whom(told: Told, turn: Turn) -> Mapping[str, Destination]:
    return told.failure if turn == "failure" else told.recovery


def _turned_bad(instance: dg.DagsterInstance, run: dg.DagsterRun, job: str) -> bool:
    """Whether a run that failed is news: each run of a job, but what a sensor tries again and again only the first time."""
    sensor = run.tags.get("dagster/sensor_name")
    if job or not sensor:
        return True
    before = instance.get_runs(dg.RunsFilter(tags={"dagster/sensor_name": sensor}, statuses=_FINISHED), cursor=run.run_id, limit=_AT_ONCE)
    alike = next((each for each in before if each.asset_selection == run.asset_selection), None)
    return alike is None or alike.status != dg.DagsterRunStatus.FAILURE


def _turned_good(instance: dg.DagsterInstance, run: dg.DagsterRun, job: str) -> bool:
    """Whether the run of the job before this one failed."""
    if not job:
        return False
    before = instance.get_runs(dg.RunsFilter(job_name=job, statuses=_FINISHED), cursor=run.run_id, limit=1)
    return bool(before) and before[0].status == dg.DagsterRunStatus.FAILURE


_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


def _send(instance: dg.DagsterInstance, watched: Watched, told: Mapping[str, Told], seen: Seen) -> int:
    """Deliver what is due, to each destination in order; answers how many."""
    now, until, sent, log = dt.datetime.now(dt.UTC), time.monotonic() + _SECONDS, 0, _log_id(instance)
    left: list[Waiting] = []
    held: set[str] = set()
    for each in sorted(seen.waiting, key=lambda waiting: waiting.seq):
        destination = _whom(told.get(each.job, told[""]), each.turn).get(each.to)
        if destination is None:
            continue  # it is no longer to be told
        if each.to in held or each.due > now.timestamp() or time.monotonic() > until:
            held.add(each.to)
            left.append(each)
            continue
        try:
            sent += _told(instance, watched, destination, each, log)
        except Exception as error:  # whatever a destination does: the others are told
            held.add(each.to)
            left += _later(each, error, now)
    seen.waiting = left
    return sent


def _log_id(instance: dg.DagsterInstance) -> str:
    """Stands for Dagster's log, whose events are numbered: another one begins anew, and its notices are others."""
    asked = getattr(instance.run_storage, "get_run_storage_id", None)
    return hashlib.sha256(str(asked() if asked else "").encode()).hexdigest()[:16]


def _told(instance: dg.DagsterInstance, watched: Watched, destination: Destination, each: Waiting, log: str) -> int:
    notice = notice_of(instance, watched, each.run_id, each.seq, log, recovered=each.turn == "recovery")
    if notice is None:
        return 0  # the run was deleted meanwhile
    try:
        receipt = _receipt(destination, delivery_of(notice, each.to, destination))
    except RecordRefused as error:
        _log.error("%s refuses the notice of the run %s: %s", each.to, each.run_id, error)
        return 0
    if receipt.retry is not None and not receipt.accepted and not receipt.refused:
        raise receipt.retry
    for refusal in receipt.refused:
        _log.error("%s refuses the notice of the run %s: %s", each.to, each.run_id, refusal.reason)
    return receipt.accepted


_under_way: dict[tuple[str, str, str, int], "Future[Receipt]"] = {}
_lock = threading.Lock()


def _receipt(destination: Destination, delivery: Delivery) -> Receipt:
    """What a destination says to a notice. Raises RetryLater where it takes its time: whoever asks again hears what became of it, and
    nothing is sent twice."""
    which = (delivery.id, delivery.table_id, delivery.run_id, delivery.upto)
    with _lock:
        receipt = _under_way.pop(which, None)
    if receipt is None:
        receipt = Future()
        threading.Thread(target=_deliver, args=(receipt, destination, delivery), name="muxly-notice", daemon=True).start()
    try:
        return receipt.result(_SECONDS_OF_ONE)
    except TimeoutError:
        if receipt.done():  # it is the destination's own
            return receipt.result()
        with _lock:
            _under_way[which] = receipt
        raise RetryLater(f"it has not answered within {_SECONDS_OF_ONE:g} seconds") from None


def _deliver(receipt: "Future[Receipt]", destination: Destination, delivery: Delivery) -> None:
    try:
        receipt.set_result(destination.deliver(delivery))
    except BaseException as error:
        receipt.set_exception(error)


def _later(each: Waiting, error: Exception, now: dt.datetime) -> list[Waiting]:
    """The notice, due later; nothing where it is a day old. Nobody is told of this but the log: a notice of a notice would have no end."""
    if now.timestamp() - each.at > _GIVEN_UP_AFTER.total_seconds():
        _log.error("%s was not told of the run %s for a day, and will not be: %s", each.to, each.run_id, error)
        return []
    each.tries += 1
    wait = min(_LONGEST_WAIT, _WAIT * 2.0 ** min(each.tries - 1, 10)).total_seconds()
    if isinstance(error, RetryLater) and error.after:
        wait = max(wait, min(error.after, _LONGEST_WAIT.total_seconds()))
    each.due = now.timestamp() + wait
    known = isinstance(error, MuxlyError)
    _log.warning("%s was not told of the run %s, in %.0f seconds again: %s", each.to, each.run_id, wait, error, exc_info=not known)
    return [each]
