"""Rows added to the values that a target has made so far: each change once, however often it is delivered.

For every metric a bit for each change says whether it is in the values. So a delivery that is repeated, a resync of everything, and a dead
letter that is replayed count what they bring for the first time, and nothing twice.
"""

import bisect
import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from muxly_dagster.destinations.prometheus.metric import Metric
from muxly_dagster.destinations.prometheus.observing import Labels, Observation, Row
from muxly_dagster.services import MetricBook, Series

_CHUNK_BITS = 16
_CHUNK_BYTES = (1 << _CHUNK_BITS) // 8

Place = tuple[str, Labels]
"""Where a series is: its metric and its labels."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How rows are added. `most` is the limit of series of a metric that has none of its own.

    `timed`: where a series stands is decided by a column with times, not by the order of changes. `told`: a receiver has to be told of
    series that end, so they are kept as `gone` until it was.
    """

    most: int
    timed: bool = False
    told: bool = False


@dataclass(slots=True)
class Added:
    """What became of the rows: refused ones by seq with the reason.

    `changed` are the seqs that brought something new, `repeats` the changes (metric and seq) that were in the values already, `unmarked`
    those that are still to be noted as taken; `made` and `ended` count series. Where a receiver is to be told, `seqs` are by series the
    changes in it, and `before` what the series were before.
    """

    refused: dict[int, str] = field(default_factory=dict)
    seqs: dict[Place, list[int]] = field(default_factory=lambda: defaultdict(list))
    repeats: set[tuple[str, int]] = field(default_factory=set)
    before: dict[Place, Series] = field(default_factory=dict)
    made: int = 0
    ended: int = 0
    changed: set[int] = field(default_factory=set)
    unmarked: list[tuple[str, int]] = field(default_factory=list)


def prepare(book: MetricBook, metrics: Sequence[Metric], table_id: str, policy: Policy) -> None:
    """End what belongs to another lake table, to a metric that is no longer declared, or to one that is now made otherwise."""
    if not policy.told:
        book.remove(book.gone())
    held = book.held()
    anew = held is not None and held[0] != table_id
    defined, wanted = book.definitions(), {metric.family: metric.definition for metric in metrics}
    for family in [*defined]:
        if anew or wanted.get(family) != defined[family]:
            _end(book, [series for series in book.series(family) if not series.gone], policy)
            book.define(family, None)
    kept = {} if anew else defined
    for family, definition in wanted.items():
        if kept.get(family) != definition:
            book.define(family, definition)
    if held is None or anew:
        book.move(table_id, None)


def add(book: MetricBook, metrics: Sequence[Metric], rows: Sequence[Row], policy: Policy) -> Added:
    """Add rows, in their order; a row that one metric refuses is added to none."""
    added = Added()
    tallies = [_Tally(book, metric, rows, number, policy, added) for number, metric in enumerate(metrics)]
    for row in rows:
        refused = row.refused or next((reason for tally in tallies if (reason := tally.refusal(row))), "")
        if refused:
            added.refused[row.seq] = refused
            continue
        for tally in tallies:
            tally.take(row)
    for tally in tallies:
        tally.write()
    return added


def _end(book: MetricBook, series: Iterable[Series], policy: Policy) -> None:
    """Series that are over: forgotten, unless a receiver that may know them is to be told."""
    told = [each for each in series if policy.told and each.sample_at]
    book.remove([each for each in series if not (policy.told and each.sample_at)])
    book.save([dataclasses.replace(each, gone=True, sample_at=each.sample_at + 1) for each in told])


@dataclass(slots=True)
class _Sum:
    """What is added to one series: its value until now and those that came, the observations in each bucket and above the last."""

    values: list[float]
    buckets: list[int]
    seq: int
    at: int


class _Tally:
    """One metric while rows are added to it."""

    def __init__(self, book: MetricBook, metric: Metric, rows: Sequence[Row], number: int, policy: Policy, added: Added) -> None:
        self._book, self._metric, self._number, self._policy, self._added = book, metric, number, policy, added
        self._gauge, self._family = metric.type == "gauge", metric.family
        said = [(row, each) for row in rows if not row.refused and (each := row.observations[number]) is not None]
        self._marks = _Marks(book, metric.family, [row.seq for row, _ in said])
        self._when_sent = self._gauge and policy.timed and policy.told
        owners = {row.owner for row, _ in said if row.owner}
        labels = {each.labels for _, each in said}
        found = book.find(metric.family, labels, owners if self._gauge else ())
        self._live: dict[Labels, Series] = {series.labels: series for series in found if not series.gone}
        self._gone = {series.labels: series for series in found if series.gone}
        self._owned: dict[str, set[Labels]] = defaultdict(set)
        for series in self._live.values():
            self._owned[series.owner].add(series.labels)
        self._before = dict(self._live) | self._gone
        if policy.told:
            added.before |= {(metric.family, labels): series for labels, series in self._before.items()}
        self._room = (metric.max_series or policy.most) - book.size(metric.family)
        self._most = metric.max_series or policy.most
        self._known = book.known(metric.family, owners) if metric.counts == "keys" else set()
        self._new_keys: set[str] = set()
        self._sums: dict[Labels, _Sum] = {}

    def refusal(self, row: Row) -> str:
        """Why the row cannot be taken; empty where it can."""
        seen = row.observations[self._number]
        if seen is None or seen.ends or seen.labels in self._live or row.seq in self._marks or self._counted_before(row):
            return ""
        freed = len(self._owned[row.owner]) if self._gauge and row.owner else 0
        if self._room + freed > 0:
            return ""
        shown = ", ".join(f'{name}="{value[:40]}"' for name, value in seen.labels)
        return (
            f"{self._metric.name} has {self._most:,} series already, the most that `max_series` allows, and {{{shown}}} would be one more: "
            "use labels with fewer values, or raise `max_series`"
        )

    def take(self, row: Row) -> None:
        """Add what the row says."""
        seen = row.observations[self._number]
        if seen is None:
            return
        if self._policy.told:
            self._added.seqs[self._family, seen.labels].append(row.seq)
        if seen.ends:
            self._end(row, seen)
            return
        if row.seq in self._marks:
            self._added.repeats.add((self._family, row.seq))
            return
        if self._when_sent:  # every value is a sample of its own, so it counts as taken only once it is written
            self._added.unmarked.append((self._family, row.seq))
        else:
            self._marks.set(row.seq)
        self._added.changed.add(row.seq)
        if self._gauge:
            self._set(row, seen)
        elif not self._counted_before(row):
            self._count(row, seen)
        if self._metric.counts == "keys" and row.owner and row.owner not in self._known:
            self._new_keys.add(row.owner)
            self._known.add(row.owner)

    # ---- gauges ----------------------------------------------------------------------------------------------------

    def _set(self, row: Row, seen: Observation) -> None:
        """The newest value wins: of the newest change, or of the newest time where a column tells it."""
        current = self._live.get(seen.labels)
        assert seen.value is not None
        newest = current is None or (self._at(row), row.seq) >= (self._at(current), current.seq)
        if not newest:
            return
        if row.owner:
            for labels in [*self._owned[row.owner]]:
                if labels != seen.labels and self._live[labels].seq < row.seq:  # the record has moved to other labels
                    self._drop(labels, row)
        series = current or self._begun(row, seen.labels)
        if current is not None:
            self._owned[current.owner].discard(seen.labels)
        self._owned[row.owner].add(seen.labels)
        sample_at = series.sample_at if self._policy.timed else max(row.at, series.sample_at + 1)
        self._live[seen.labels] = dataclasses.replace(
            series, value=seen.value, count=series.count + 1, seq=row.seq, at=row.at, owner=row.owner, sample_at=sample_at
        )

    def _end(self, row: Row, seen: Observation) -> None:
        """End a record's own series, whatever its labels were; without a key, the one with its labels. Repeating it changes nothing."""
        for labels in [*self._owned[row.owner]] if row.owner else [seen.labels] if seen.labels in self._live else []:
            if self._live[labels].seq < row.seq:
                self._added.changed.add(row.seq)
                self._drop(labels, row)

    def _at(self, of: Row | Series) -> int:
        return of.at if self._policy.timed else 0

    def _drop(self, labels: Labels, row: Row) -> None:
        series = self._live.pop(labels)
        if not self._policy.timed:
            series = dataclasses.replace(series, sample_at=max(series.sample_at, row.at - 1))
        self._owned[series.owner].discard(labels)
        self._gone[labels] = series
        self._room += 1
        self._added.ended += 1

    # ---- what is counted -------------------------------------------------------------------------------------------

    def _count(self, row: Row, seen: Observation) -> None:
        assert seen.value is not None
        if seen.labels not in self._live:
            self._live[seen.labels] = self._begun(row, seen.labels)
        if (tally := self._sums.get(seen.labels)) is None:
            series = self._live[seen.labels]
            tally = self._sums[seen.labels] = _Sum([series.value], [*(count for _, count in series.buckets), 0], series.seq, series.at)
        tally.values.append(seen.value)
        tally.seq, tally.at = max(tally.seq, row.seq), max(tally.at, row.at)
        if self._metric.type == "histogram":
            tally.buckets[bisect.bisect_left(self._metric.bounds, seen.value)] += 1

    def _begun(self, row: Row, labels: Labels) -> Series:
        """A new series. One that is gone, but not told of yet, goes on in time where it was."""
        self._room -= 1
        self._added.made += 1
        gone = self._gone.pop(labels, None)
        buckets = tuple((bound, 0) for bound in self._metric.bounds) if self._metric.type == "histogram" else ()
        return Series(
            self._metric.family,
            self._metric.type,
            labels,
            buckets=buckets,
            at=row.at,
            sample_at=gone.sample_at if gone else 0,
            sent_at=gone.sent_at if gone else 0,
            created_at=row.at - 1,
        )

    def _counted_before(self, row: Row) -> bool:
        return self._metric.counts == "keys" and row.owner in self._known

    def write(self) -> None:
        """Put everything into the book."""
        for labels, tally in self._sums.items():
            series = self._live[labels]
            self._live[labels] = dataclasses.replace(
                series,
                value=math.fsum(tally.values),
                count=series.count + len(tally.values) - 1,
                buckets=tuple((bound, count) for (bound, _), count in zip(series.buckets, tally.buckets, strict=False)),
                seq=tally.seq,
                at=tally.at,
                sample_at=max(tally.at, series.sample_at + 1),
            )
        self._book.save([series for labels, series in self._live.items() if series is not self._before.get(labels)])
        _end(self._book, [series for series in self._gone.values() if not series.gone], self._policy)
        self._marks.write()
        self._book.learn(self._family, self._new_keys)


class _Marks:
    """Which changes a metric holds, of those in question."""

    def __init__(self, book: MetricBook, family: str, seqs: Iterable[int]) -> None:
        self._book, self._family = book, family
        self._held = book.counted(family, sorted({seq >> _CHUNK_BITS for seq in seqs}))
        self._set: dict[int, bytearray] = {}

    def __contains__(self, seq: int) -> bool:
        place = seq & ((1 << _CHUNK_BITS) - 1)
        bits = self._set.get(seq >> _CHUNK_BITS) or self._held.get(seq >> _CHUNK_BITS)
        return bool(bits and bits[place >> 3] & (1 << (place & 7)))

    def set(self, seq: int) -> None:
        """Note that the metric holds this change."""
        chunk, place = seq >> _CHUNK_BITS, seq & ((1 << _CHUNK_BITS) - 1)
        if chunk not in self._set:
            self._set[chunk] = bytearray(self._held.get(chunk, bytes(_CHUNK_BYTES)))
        self._set[chunk][place >> 3] |= 1 << (place & 7)

    def write(self) -> None:
        """Put into the book what was set."""
        for chunk, bits in self._set.items():
            self._book.mark(self._family, chunk, bytes(bits))


def confirm(book: MetricBook, sent: Mapping[Place, Series], taken: Iterable[tuple[str, int]]) -> None:
    """A receiver has taken the samples of these series: it knows how far they are, and which have ended.

    `taken` are changes, by metric and seq, that count as taken only now.
    """
    by_metric: dict[str, list[int]] = defaultdict(list)
    for family, seq in taken:
        by_metric[family].append(seq)
    for family, seqs in by_metric.items():
        marks = _Marks(book, family, seqs)
        for seq in seqs:
            marks.set(seq)
        marks.write()
    book.save(sent.values())
