"""Muxly's own figures as families of metrics: pulls, tables, deliveries, dead letters, breakers, rate budgets, the inbox.

They are made of the state and the lake alone, so that every process that is asked says the same.
"""

import datetime as dt
from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from muxly_dagster import browsing
from muxly_dagster.assembly import Assembly
from muxly_dagster.lake import Lake, LakeTable
from muxly_dagster.state import State
from muxly_dagster.state.figures import Delivered, Figures

_BREAKERS = ("closed", "open", "probing", "disabled")


def families(lake: Lake, state: State, assembly: Assembly) -> list[Metric]:
    """All of them. Raises MuxlyError where the state or the lake cannot be read."""
    figures = Figures(state)
    tables = {name: lake.table(name) for name in (*assembly.pulls, *assembly.transforms)}
    return [
        *_pulls(figures, assembly),
        *_tables(tables),
        *_deliveries(figures, state, assembly, tables),
        *_letters(figures),
        *_breakers(state, assembly),
        *_budgets(figures),
        *_inbox(state),
    ]


def _pulls(figures: Figures, assembly: Assembly) -> Iterable[Metric]:
    last = _gauge("muxly_pull_last_success_timestamp_seconds", "When a pull last read everything there was.", "pull")
    found = figures.pulls()
    for name in assembly.pulls:
        if name in found:
            last.add_metric([name], found[name].timestamp())
    return [last]


def _tables(tables: Mapping[str, LakeTable | None]) -> Iterable[Metric]:
    rows = _gauge("muxly_table_rows", "Current rows of a table of the lake.", "table")
    changes = _counter("muxly_table_changes", "Changes stored in a table of the lake.", "table")
    for name, table in tables.items():
        if table is not None:
            rows.add_metric([name], browsing.count(table))
            changes.add_metric([name], table.head)
    return [rows, changes]


def _deliveries(figures: Figures, state: State, assembly: Assembly, tables: Mapping[str, LakeTable | None]) -> Iterable[Metric]:
    records = _counter("muxly_delivery_records", "Changes that a delivery has dealt with, by what became of them.", "delivery", "result")
    seconds = _counter("muxly_delivery_seconds", "How long destinations took for a delivery's records.", "delivery")
    lag = _gauge("muxly_delivery_lag_records", "Changes that a delivery has not dealt with.", "delivery")
    last = _gauge("muxly_delivery_last_receipt_timestamp_seconds", "When a delivery last had a receipt.", "delivery")
    until = _gauge("muxly_delivery_waiting_until_timestamp_seconds", "The moment that a delivery waits for.", "delivery")
    failures = _gauge("muxly_delivery_failures", "How often a delivery failed in a row.", "delivery")
    delivered, offsets, waits = figures.deliveries(), figures.offsets(), {wait.target: wait for wait in state.waiting.all()}
    for name, target in assembly.targets.items():
        sums = delivered.get(name, Delivered())
        for result in ("accepted", "refused", "unrouted"):
            records.add_metric([name, result], getattr(sums, result))
        seconds.add_metric([name], sums.seconds)
        if sums.last:
            last.add_metric([name], dt.datetime.fromisoformat(sums.last).timestamp())
        table = tables.get(target.table)
        table_id, seq = offsets.get(name, ("", 0))
        if table is not None:
            lag.add_metric([name], table.head - (seq if table_id == table.table_id else 0))
        if name in waits:
            until.add_metric([name], waits[name].until.timestamp())
        failures.add_metric([name], waits[name].failures if name in waits else 0)
    return [records, seconds, lag, last, until, failures]


def _letters(figures: Figures) -> Iterable[Metric]:
    letters = _gauge("muxly_dead_letters", "Open dead letters: records that could not be read, or that were refused.", "kind", "name")
    for (kind, name), count in figures.open_letters().items():
        letters.add_metric([kind, name], count)
    return [letters]


def _breakers(state: State, assembly: Assembly) -> Iterable[Metric]:
    breakers = _gauge("muxly_breaker", "How a destination's breaker stands: 1 for the state that it is in.", "destination", "state")
    held = {each.destination: each.status for each in state.breakers.all()}
    for name in assembly.destinations:
        for status in _BREAKERS:
            breakers.add_metric([name, status], held.get(name, "closed") == status)
    return [breakers]


def _budgets(figures: Figures) -> Iterable[Metric]:
    places = _gauge("muxly_rate_budget_requests", "Places for requests under way that are taken in a rate budget.", "budget")
    paused = _gauge("muxly_rate_budget_paused_seconds", "How long a provider still wants no request of a rate budget.", "budget")
    for budget in figures.budgets():
        places.add_metric([budget.name[:12]], budget.places)
        paused.add_metric([budget.name[:12]], budget.paused)
    return [places, paused]


def _inbox(state: State) -> Iterable[Metric]:
    events = _gauge("muxly_inbox_events", "Collected events that are not in the lake yet.", "source", "stream")
    size = _gauge("muxly_inbox_bytes", "Bytes of them, as they are kept.", "source", "stream")
    oldest = _gauge("muxly_inbox_oldest_timestamp_seconds", "When the oldest of them came.", "source", "stream")
    for depth in state.inbox.depth():
        events.add_metric([depth.source, depth.stream], depth.events)
        size.add_metric([depth.source, depth.stream], depth.bytes)
        oldest.add_metric([depth.source, depth.stream], depth.oldest.timestamp())
    return [events, size, oldest]


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=list(labels))


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=list(labels))
