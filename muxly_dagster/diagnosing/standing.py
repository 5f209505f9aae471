"""How work stands: what waits in the inbox, which destinations are left alone, what was refused."""

import datetime as dt
from collections.abc import Sequence

from muxly_dagster.connectors.collector import Collector
from muxly_dagster.diagnosing.finding import Finding, Subject
from muxly_dagster.errors import MuxlyError

_MANY_EVENTS = 100_000
_LATE = dt.timedelta(minutes=10)


def inbox(subject: Subject) -> Sequence[Finding]:
    """How many collected events wait to be pulled."""
    name = "inbox"
    if subject.runtime is None:
        return [Finding(name, "skipped", "the state database is not open")]
    waiting: dict[str, int] = {}
    for source, connector in subject.runtime.assembly.sources.items():
        if isinstance(connector, Collector):
            waiting |= {f"{source}.{stream}": count for stream, count in connector.waiting().items()}
    total = sum(waiting.values())
    shown = ", ".join(f"{stream} {count:,}" for stream, count in sorted(waiting.items(), key=lambda item: -item[1])[:5])
    if total > _MANY_EVENTS:
        do = "see that the daemon runs, the sensor muxly_inbox is on and the pulls of these streams do not fail"
        return [Finding(name, "warning", f"{total:,} events wait: {shown}", do)]
    return [Finding(name, "ok", f"{total:,} events wait" + (f": {shown}" if shown else ""))]


def starts(subject: Subject) -> Sequence[Finding]:
    """Whether runs that are due have begun."""
    name = "starts of jobs"
    if subject.runtime is None:
        return [Finding(name, "skipped", "the state database is not open")]
    now = dt.datetime.now(dt.UTC)
    late = [start for start in subject.runtime.state.starts.due(now) if now - start.due_at > _LATE]
    if late:
        jobs = ", ".join(sorted({start.job for start in late}))
        do = "see that the daemon and the code server run, and the sensor muxly_starts is on"
        return [Finding(name, "warning", f"{len(late)} have been due for more than {_LATE.seconds // 60} minutes: {jobs}", do)]
    return [Finding(name, "ok", "nothing is overdue")]


def breakers(subject: Subject) -> Sequence[Finding]:
    """Which destinations are left alone after failures, or switched off."""
    name = "breakers"
    if subject.runtime is None:
        return [Finding(name, "skipped", "the state database is not open")]
    known = subject.runtime.assembly.destinations
    findings = []
    for each in subject.runtime.state.breakers.all():
        if each.destination not in known or each.status == "closed":
            continue
        disabled = each.status == "disabled"
        what = f"{each.destination} is {'switched off' if disabled else 'left alone'} since {each.since}: {each.reason}"
        do = f"set right what it says, then `muxly destinations resume {each.destination}`"
        findings.append(Finding(name, "failed" if disabled else "warning", what, do))
    return findings or [Finding(name, "ok", "all destinations are delivered to")]


def dead_letters(subject: Subject) -> Sequence[Finding]:
    """How many records are shelved."""
    name = "dead letters"
    if subject.runtime is None:
        return [Finding(name, "skipped", "the state database is not open")]
    runtime = subject.runtime
    names = [*runtime.assembly.pulls, *runtime.assembly.targets]
    counts = {each: count for each in names if (count := runtime.state.ledger.count_open(each))}
    if not counts:
        return [Finding(name, "ok", "none")]
    shown = ", ".join(f"{each} {count:,}" for each, count in sorted(counts.items(), key=lambda item: -item[1])[:5])
    do = "look at them with `muxly dead-letters list`, then correct, replay or skip them"
    return [Finding(name, "warning", f"{sum(counts.values()):,} records are shelved: {shown}", do)]


def guarded(subject: Subject) -> Sequence[Finding]:
    """Whether the API has something to sign in with."""
    name = "guard of the API"
    if subject.environ.get("MUXLY_ADMIN_TOKEN"):
        return [Finding(name, "ok", "an admin token is set")]
    if subject.runtime is None:
        return [Finding(name, "skipped", "the state database is not open")]
    keys = sum(key.revoked_at is None for key in subject.runtime.state.keys.all())
    what = "no admin token is set: administrators can use the API on this machine only"
    return [Finding(name, "ok", f"{what}; {keys} write {'key' if keys == 1 else 'keys'}")]


def lags(subject: Subject) -> Sequence[Finding]:
    """How far deliveries are behind."""
    name = "deliveries"
    if subject.runtime is None:
        return [Finding(name, "skipped", "the state database is not open")]
    behind: dict[str, int] = {}
    for target in subject.runtime.assembly.targets:
        try:
            behind[target] = subject.runtime.lag(target)
        except MuxlyError:
            continue  # its table is told by the lake's own check
    waiting = {target: count for target, count in behind.items() if count}
    if not waiting:
        return [Finding(name, "ok", f"{len(behind)} deliveries, none behind")]
    shown = ", ".join(f"{target} {count:,}" for target, count in sorted(waiting.items(), key=lambda item: -item[1])[:5])
    return [Finding(name, "ok", f"changes wait for {len(waiting)} of {len(behind)} deliveries: {shown}")]
