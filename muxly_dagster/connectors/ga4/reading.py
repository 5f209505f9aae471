"""How a report is read: whole days in slices, every slice to its last row, in as few requests as can be.

A slice is a stretch of days. Up to five go into one request. One that came back sampled, or with an "(other)" row, is asked again as
two halves, down to single days, and later slices are made that small from the start.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
import pyarrow.compute as pc
from google.analytics.data_v1beta.types import FilterExpression, RunRealtimeReportRequest, RunReportRequest

from muxly_dagster.connector import Batch, Span
from muxly_dagster.connectors.ga4.client import MOST_IN_BATCH, Client
from muxly_dagster.connectors.ga4.names import Names, realtime_problems
from muxly_dagster.connectors.ga4.quota import returns
from muxly_dagster.connectors.ga4.refusals import InvalidRequest, QuotaSpent
from muxly_dagster.connectors.ga4.reports import DATE, Report
from muxly_dagster.connectors.ga4.rows import Page, read_page
from muxly_dagster.errors import ConfigurationError, MuxlyError, Problem, RetryLater, SourceError
from muxly_dagster.records import normalise

_DAY = dt.timedelta(days=1)
_READINGS = 3  # how often a slice is begun again whose number of rows changes under our hands
_MOST_ROWS = 1_000_000  # a slice is held in memory until it is whole; longer ones are halved
_REALTIME_ROWS = 250_000  # the most that runRealtimeReport gives


@dataclass(frozen=True, slots=True)
class Wish:
    """What of a report to read, and in which portions. `start` is a day, or how many days back from today; the others are days too."""

    start: dt.date | int
    lookback: int
    days: int
    page_rows: int
    floor: float
    currency: str = ""
    keep_empty_rows: bool = False


@dataclass(frozen=True, slots=True)
class _Slice:
    first: dt.date
    last: dt.date

    def halves(self) -> "tuple[_Slice, _Slice]":
        middle = self.first + (self.last - self.first) // 2
        return _Slice(self.first, middle), _Slice(middle + _DAY, self.last)

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


class Reading:
    """One pull of one report. `through` is the last day that is read and over; None for a pull from the start."""

    def __init__(self, client: Client, report: Report, wish: Wish, through: dt.date | None) -> None:
        self._client, self._report, self._wish, self._through = client, report, wish, through
        self._width = wish.days
        self._today = dt.date.min
        self._undeclared: dt.date | None = None  # the first day read of which nothing says yet that it is complete

    def batches(self) -> Iterator[Batch]:
        """The report's days from the look-back on, the cursor behind every complete slice.

        The lake may hold rows of a day that are gone. So the days that the look-back reads again are said to be complete before the cursor
        passes them, and all others at the end, or where the pull breaks off: two scans of the table at most.
        """
        try:
            self._today = self._open()
            yield from self._all()
        except MuxlyError as error:
            yield from self._declared(self._through)
            self._tell(error)
            raise
        yield from self._declared(self._today)

    def _declared(self, last: dt.date | None) -> Iterator[Batch]:
        """Says that the days through `last` are complete, from the first one on of which nothing said so yet."""
        if self._undeclared and last and self._undeclared <= last:
            yield Batch(pa.table({}), complete=(Span(DATE, self._undeclared, last + _DAY),))

    def _open(self) -> dt.date:
        """What day it is where the property is. The same small request finds names that are unknown, or other ones now."""
        self._report, answer = resolving(
            self._client, self._report, lambda report: self._client.run(self._request(report, "today", "today", limit=1))
        )
        zone = answer.metadata.time_zone
        try:
            return dt.datetime.now(ZoneInfo(zone)).date()
        except (ZoneInfoNotFoundError, ValueError):
            raise SourceError(
                f"the property has the time zone {zone!r}, which this machine does not know",
                do="install the Python package tzdata, or correct the time zone of the property",
                where=self._client.property,
            ) from None

    def _all(self) -> Iterator[Batch]:
        start = self._wish.start
        if self._through is None:
            self._undeclared = day = start if isinstance(start, dt.date) else self._today - start * _DAY
            again = None
        else:
            self._through = min(self._through, self._today - _DAY)
            day = self._through + _DAY - self._wish.lookback * _DAY
            day = max(day, start) if isinstance(start, dt.date) else day
            # What an interrupted pull read behind its cursor may be in the lake too, at most a slice.
            end = min(self._through + self._wish.days * _DAY, self._today)
            again = _Slice(day, end) if day <= end else None  # none where `start` was moved beyond what was read
        while day <= self._today:
            self._mind_the_floor()
            slices = self._plan(day, again)
            answers = self._client.run_all([self._ask(part) for part in slices])
            for part, answer in zip(slices, answers, strict=True):
                yield from self._whole(part, read_page(answer, self._report), again)
            day, again = slices[-1].last + _DAY, None

    def _plan(self, day: dt.date, again: _Slice | None) -> list[_Slice]:
        slices = [again] if again else []
        day = again.last + _DAY if again else day
        while day <= self._today and len(slices) < MOST_IN_BATCH:
            slices.append(_Slice(day, min(day + (self._width - 1) * _DAY, self._today)))
            day = slices[-1].last + _DAY
        return slices

    def _whole(self, part: _Slice, first: Page, again: _Slice | None) -> Iterator[Batch]:
        """A slice as batches, or its halves where that makes a better report of it. `again` is the stretch that is read once more."""
        coarse = "sampled" in first.flags or "other_row" in first.flags or first.row_count > _MOST_ROWS
        if coarse and part.first < part.last:
            halves = part.halves()
            self._width = min(self._width, (halves[0].last - halves[0].first).days + 1)
            for half, answer in zip(halves, self._client.run_all([self._ask(half) for half in halves]), strict=True):
                yield from self._whole(half, read_page(answer, self._report), again)
            return
        pages = self._pages(part, first)
        read_again = again is not None and part.first <= again.last
        ends = again is not None and part.last == again.last
        for page in pages:
            yield from self._graded(page)
        if read_again and not ends:
            return  # the cursor waits until the whole stretch is said to be complete
        through = min(part.last, self._today - _DAY)
        if through < (self._through or part.first):
            return  # today alone: nothing is over yet
        self._through = through
        span: tuple[Span, ...] = ()
        if again and ends:
            span = (Span(DATE, again.first, again.last + _DAY),)
            self._undeclared = again.last + _DAY
        yield Batch(pa.table({}), {"property": self._client.property, "through": self._through.isoformat()}, complete=span)

    def _pages(self, part: _Slice, first: Page) -> list[Page]:
        """All pages of a slice, whose rows are as many as the report says it has."""
        for _ in range(_READINGS):
            pages = [first]
            offsets = list(range(first.rows, first.row_count, self._wish.page_rows)) if first.rows else []
            while offsets:
                requests = [self._ask(part, offset) for offset in offsets[:MOST_IN_BATCH]]
                pages += [read_page(answer, self._report) for answer in self._client.run_all(requests)]
                del offsets[:MOST_IN_BATCH]
            if {page.row_count for page in pages} == {sum(page.rows for page in pages)}:
                return pages
            first = read_page(self._client.run(self._ask(part)), self._report)
        counts = ", ".join(f"{page.rows} of {page.row_count}" for page in pages)
        raise RetryLater(
            f"the report of {part} changes while it is read: its pages have {counts} rows",
            do="run it again later, or make `page_rows` larger",
            where=self._client.property,
        )

    def _graded(self, page: Page) -> Iterator[Batch]:
        """A page as batches: days that are settled, and those that are still provisional. Unreadable rows are told once."""
        rows, unreadable = page.table, page.unreadable
        if len(rows):
            settled = pc.less(rows[DATE], pa.scalar(self._today - self._wish.lookback * _DAY, pa.date32()))
            for chosen, more in ((settled, {}), (pc.invert(settled), {"provisional": True})):
                graded = rows.filter(chosen)
                if len(graded):
                    yield Batch(normalise(graded), unreadable=unreadable, metadata={**page.flags, **more})
                    unreadable = ()
        if unreadable:
            yield Batch(pa.table({}), unreadable=unreadable)

    def _mind_the_floor(self) -> None:
        if short := self._client.quota.short(self._wish.floor):
            raise QuotaSpent(
                f"{short.what}, and `quota_floor` keeps {self._wish.floor:.0%} of them for others",
                do=f"run it again {returns(short.after)}, or lower `quota_floor`",
                where=self._client.property,
                after=short.after,
            )

    def _tell(self, error: MuxlyError) -> None:
        """Where a spent quota ends the pull: how far it came."""
        if isinstance(error, QuotaSpent):
            stands = f"all days through {self._through} are stored" if self._through else "no day was read yet"
            then = f"; the next pull goes on with {self._through + _DAY}" if self._through else ""
            raise QuotaSpent(f"{error.what}; {stands}{then}", do=error.do, where=error.where, after=error.after) from error

    def _ask(self, part: _Slice, offset: int = 0) -> RunReportRequest:
        return self._request(self._report, part.first.isoformat(), part.last.isoformat(), self._wish.page_rows, offset)

    def _request(self, report: Report, first: str, last: str, limit: int, offset: int = 0) -> RunReportRequest:
        return RunReportRequest(
            property=self._client.property,
            date_ranges=[{"start_date": first, "end_date": last}],
            # Without an order, rows may change places between pages.
            order_bys=[{"dimension": {"dimension_name": name}} for name in report.asked(report.dimensions)],
            limit=limit,
            offset=offset,
            currency_code=self._wish.currency,
            keep_empty_rows=self._wish.keep_empty_rows,
            return_property_quota=True,
            **asked(report),
        )


def read_realtime(client: Client, report: Report) -> Iterator[Batch]:
    """The last 30 minutes, as they are now: one answer, since realtime reports have no pages."""
    if problems := realtime_problems(report):
        raise ConfigurationError(problems, where=client.property)
    request = RunRealtimeReportRequest(property=client.property, limit=_REALTIME_ROWS, return_property_quota=True, **asked(report))
    page = read_page(client.run_realtime(request), report)
    yield Batch(normalise(page.table), unreadable=page.unreadable, metadata=page.flags)


def asked(report: Report) -> dict[str, Any]:
    """What a request says of the report itself. Raises ConfigurationError for a filter that is no FilterExpression."""
    return {
        "dimensions": [{"name": name} for name in report.asked(report.dimensions)],
        "metrics": [{"name": name} for name in report.asked(report.metrics)],
        **{field: _filter(field, said) for field, said in report.filters().items()},
    }


def _filter(field: str, said: Mapping[str, Any]) -> Any:
    # Protobuf's own errors are of this module, which has no other use here.
    from google.protobuf import json_format

    try:
        return FilterExpression(json_format.ParseDict(dict(said), FilterExpression.pb(FilterExpression())))
    except json_format.ParseError as error:
        raise ConfigurationError(
            f"`{field}` is no FilterExpression: {error}",
            do='write it as in {"filter": {"fieldName": "country", "stringFilter": {"value": "Norway"}}}',
        ) from None


def resolving(client: Client, report: Report, ask: Callable[[Report], Any]) -> tuple[Report, Any]:
    """The answer, and the report in names that Google understands: where it does not, its list of names is asked for.

    Raises ConfigurationError that names what is unknown, and what was perhaps meant.
    """
    try:
        return report, ask(report)
    except InvalidRequest as error:
        names = Names(client.metadata())
        new = names.renamed(report)
        if new:
            report = report.renamed(new)
            report.check()
            return report, ask(report)
        problems: list[Problem] = names.problems(report)
        if problems:
            raise ConfigurationError(problems, where=client.property) from error
        raise
