"""The sensor that empties the inbox: where events wait, it runs the pulls that read them, and all that follows from these."""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from muxly_dagster.assembly import Assembly, Pull, select
from muxly_dagster.connectors.collector import Collector
from muxly_dagster.defs.checks.own import DELIVERY, QUARANTINE, REFUSED
from muxly_dagster.defs.failures import dagster_errors
from muxly_dagster.defs.metadata import asset_key
from muxly_dagster.defs.resources import MUXLY
from muxly_dagster.runtime import Runtime

INBOX = "muxly_inbox"
"""The sensor's name, and the tag that names the pulls which its runs were requested for."""

_SENSOR_SECONDS = 5
_FIRST = dt.timedelta(seconds=10)
_LONGEST = dt.timedelta(minutes=10)
_LONGEST_WITH_NEWS = dt.timedelta(minutes=1)
_ALIVE = dt.timedelta(hours=1)
_MOST_RUNS = 100
_UNFINISHED = frozenset(
    {
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    }
)


def automatic_pulls(assembly: Assembly) -> dict[str, Pull]:
    """The pulls that run by themselves as soon as events wait for them."""
    return {name: pull for name, pull in assembly.pulls.items() if isinstance(pull.connector, Collector) and pull.connector.automatic}


def inbox_sensor(assembly: Assembly) -> dg.SensorDefinition:
    """Requests one run of the pulls whose events wait, with the transforms and deliveries behind them; pulls with nothing in common have
    runs of their own.

    While such a run is unfinished, what comes in waits for the next one. A run that failed is repeated, whether or not new events wait
    (what it had pulled already would be delivered by nobody), later each time. Deliveries that failed and are due again at a moment
    are left to the sensor of redelivery.
    """
    pulls = automatic_pulls(assembly)
    behind = {name: frozenset(select(assembly, [f"{name}+"])) for name in pulls}

    @dg.sensor(
        name=INBOX,
        asset_selection=dg.AssetSelection.assets(*(asset_key(name) for name in frozenset().union(*behind.values()))),
        minimum_interval_seconds=_SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={MUXLY},
        description="Pulls collected events as soon as they wait, and delivers what follows from them.",
    )
    def collect(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        now = dt.datetime.now(dt.UTC)
        with dagster_errors():
            runtime = context.resources.muxly.runtime
            waiting = _waiting(runtime, pulls)
            runs = _Runs.read(context.instance, now)
            due = [name for name in pulls if runs.due(name, now, waits=name in waiting, last_pull=runtime.last_pull(name))]
            left_out = _left_out(runtime, now) if due else frozenset()
        requests = [
            _request(assembly, names, [name for name in assets if name not in left_out])
            for names, assets in _together(due, behind)
            if not runs.under_way(assets)
        ]
        if requests:
            return dg.SensorResult(run_requests=requests)
        return dg.SkipReason("events wait for a run that is unfinished, or for one that failed" if waiting else "no event waits")

    return collect


def _waiting(runtime: Runtime, pulls: Mapping[str, Pull]) -> frozenset[str]:
    """The pulls whose events wait."""
    streams = {name: (pull.source, pull.stream.name) for name, pull in pulls.items()}
    ends = runtime.state.inbox.ends(streams.values())
    return frozenset(name for name, stream in streams.items() if stream in ends)


def _request(assembly: Assembly, pulls: Sequence[str], assets: Sequence[str]) -> dg.RunRequest:
    """The run of these assets, with the checks in their own steps. Those that have to be looked at when nothing runs have a sensor."""
    checks = {name: (QUARANTINE,) if name in assembly.pulls else (DELIVERY, REFUSED) if name in assembly.targets else () for name in assets}
    return dg.RunRequest(
        asset_selection=[asset_key(name) for name in assets],
        asset_check_keys=[dg.AssetCheckKey(asset_key(name), check) for name, of_it in checks.items() for check in of_it],
        tags={INBOX: ",".join(pulls)},
    )


def _left_out(runtime: Runtime, now: dt.datetime) -> frozenset[str]:
    """The deliveries that would fail now: those to be tried again at a moment, and those whose destination wants nothing more."""
    breakers = {each.destination: each for each in runtime.state.breakers.all()}
    targets = runtime.assembly.targets
    disabled = {name for name, target in targets.items() if (b := breakers.get(target.destination_name)) and b.status == "disabled"}
    later = set()
    for wait in runtime.state.waiting.all():
        if wait.target in targets and wait.until > now:
            breaker = breakers.get(targets[wait.target].destination_name)
            if wait.failures or (breaker is not None and breaker.holds(now)):
                later.add(wait.target)
    return frozenset(disabled | later)


def _together(names: Iterable[str], behind: Mapping[str, frozenset[str]]) -> list[tuple[list[str], list[str]]]:
    """Pulls that lead to the same assets in one run, each with these assets: two runs would be in each other's way."""
    groups: list[tuple[list[str], frozenset[str]]] = []
    for name in names:
        meeting = [group for group in groups if group[1] & behind[name]]
        groups = [group for group in groups if group not in meeting]
        groups.append(([each for group in meeting for each in group[0]] + [name], behind[name].union(*(group[1] for group in meeting))))
    return [(pulls, sorted(assets)) for pulls, assets in groups]


# ---- what became of earlier runs -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ran:
    """One run of this sensor."""

    assets: frozenset[str]
    status: dg.DagsterRunStatus
    created: dt.datetime
    ended: dt.datetime


@dataclass(frozen=True, slots=True)
class _Runs:
    """The sensor's runs, the newest first."""

    runs: Sequence[_Ran]
    unfinished: Collection[str]

    @classmethod
    def read(cls, instance: dg.DagsterInstance, now: dt.datetime) -> "_Runs":
        """From Dagster's storage. A run is taken for dead that is older than an hour, and whose end nobody told Dagster."""
        records = instance.get_run_records(dg.RunsFilter(tags={"dagster/sensor_name": INBOX}), limit=_MOST_RUNS)
        runs = [_ran(record, now) for record in records]
        return cls(runs, frozenset().union(*(run.assets for run in runs if run.status in _UNFINISHED)))

    def under_way(self, assets: Iterable[str]) -> bool:
        """Whether an unfinished run has some of these assets."""
        return not set(assets).isdisjoint(self.unfinished)

    def due(self, pull: str, now: dt.datetime, *, waits: bool, last_pull: dt.datetime | None) -> bool:
        """Whether a pull should run: something waits, or its last run failed; not too soon after runs that failed."""
        failed: list[_Ran] = []
        for run in (run for run in self.runs if pull in run.assets and run.status not in _UNFINISHED):
            if run.status == dg.DagsterRunStatus.SUCCESS:
                break
            failed.append(run)
        if not failed:
            return waits
        if not waits and failed[0].status != dg.DagsterRunStatus.FAILURE:
            return False  # somebody stopped it
        # Where the pull itself went well, new events should not wait long for what is wrong behind it.
        works = last_pull is not None and last_pull > failed[0].created
        longest = _LONGEST_WITH_NEWS if waits and works else _LONGEST
        return now >= failed[0].ended + min(longest, _FIRST * (1 << min(len(failed) - 1, 20)))


def _ran(record: dg.RunRecord, now: dt.datetime) -> _Ran:
    run, created = record.dagster_run, _utc(record.create_timestamp)
    dead = run.status in _UNFINISHED and created < now - _ALIVE
    return _Ran(
        frozenset(".".join(key.path) for key in run.asset_selection or ()),
        dg.DagsterRunStatus.FAILURE if dead else run.status,
        created,
        dt.datetime.fromtimestamp(record.end_time, dt.UTC) if record.end_time else _utc(record.update_timestamp),
    )


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
