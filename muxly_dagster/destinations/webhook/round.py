"""One delivery's way out: which request may go next, what each answer settles, and where to stop."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from muxly_dagster import records
from muxly_dagster.destination import Delivery, Receipt, Refusal
from muxly_dagster.destinations.webhook.answers import Meaning, Tally
from muxly_dagster.destinations.webhook.packing import Packing, Record
from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater
from muxly_dagster.http import Outcome, Request

Order = Literal["none", "key", "strict"]

_CHUNK_ROWS = 500
_NOBODY_THERE = frozenset({404, 405})
_REFUSALS_OF_NOBODY = 20
"""So many records refused with "nothing is here", and none accepted, say that the address is wrong, not the records."""

_UNSETTLED, _ACCEPTED, _REFUSED = 0, 1, 2


@dataclass(slots=True, eq=False)
class _Parcel:
    """Records that stand together: those of one request, and when it is refused, of the requests that look for who is at fault.

    `pieces` are spans of `shown` that are still to be sent, the next one last. `behind` counts the lanes in which others are before it.
    """

    first: int
    shown: Sequence[Record]
    rule: str
    lanes: frozenset[str]
    pieces: list[tuple[int, int]]
    behind: int = 0


@dataclass(slots=True)
class Round:
    """The records of one delivery as a source of requests, and what has been answered for.

    `order` says which records share a lane; in a lane, nothing goes before what came earlier is settled. After the first record that
    could not be settled nothing more is sent; what is under way then is heard to its end.
    """

    delivery: Delivery
    packing: Packing
    order: Order
    meaning: Callable[[Outcome], Meaning]
    host: str
    tally: Tally = field(default_factory=Tally)
    refusals: dict[int, str] = field(default_factory=dict)
    errors: dict[int, MuxlyError] = field(default_factory=dict)
    nobody: ConfigurationError | None = None
    _states: bytearray = field(init=False)
    _parcels: Iterator[_Parcel] = field(init=False)
    _ready: deque[_Parcel] = field(default_factory=deque)
    _lanes: dict[str, deque[_Parcel]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._states = bytearray(len(self.delivery.rows))
        self._parcels = _parcels(self.delivery, self.packing, self.order)

    # ---- what goes next ----------------------------------------------------------------------------------------------------

    def next(self) -> Request | None:
        """The next request that may go out now."""
        while not self.errors:
            if not self._ready:
                parcel = next(self._parcels, None)
                if parcel is None:
                    return None
                self._line_up(parcel)
                continue
            parcel = self._ready.popleft()
            start, count = parcel.pieces[-1]
            try:
                return self.packing.request(parcel.shown[start : start + count], parcel.rule, parcel)
            except RecordRefused as error:
                self._refuse(parcel, error.what)
            except MuxlyError as error:
                self.errors[parcel.first + start] = error
        return None

    def _line_up(self, parcel: _Parcel) -> None:
        for lane in parcel.lanes:
            line = self._lanes.setdefault(lane, deque())
            parcel.behind += bool(line)
            line.append(parcel)
        if not parcel.behind:
            self._ready.append(parcel)

    def _leave(self, parcel: _Parcel) -> None:
        """A parcel is settled: whoever stands behind it in all of its lanes may go."""
        for lane in parcel.lanes:
            line = self._lanes[lane]
            line.popleft()
            if not line:
                del self._lanes[lane]
                continue
            line[0].behind -= 1
            if not line[0].behind:
                self._ready.append(line[0])

    # ---- what is settled -----------------------------------------------------------------------------------------------------

    def take(self, outcome: Outcome) -> None:
        """Book how a request ended."""
        parcel: _Parcel = outcome.request.tag
        self.tally.add(outcome)
        meaning = self.meaning(outcome)
        if isinstance(meaning, MuxlyError):
            self.errors[parcel.first + parcel.pieces[-1][0]] = meaning
        elif meaning is None:
            self._settle(parcel, _ACCEPTED)
        else:
            self._refuse(parcel, meaning)

    def _refuse(self, parcel: _Parcel, reason: str) -> None:
        """A single record is refused for good; of several, the two halves are tried."""
        start, count = parcel.pieces[-1]
        if count > 1:
            half = count // 2
            parcel.pieces[-1:] = [(start + half, count - half), (start, half)]
            self._ready.appendleft(parcel)
            return
        self.refusals[parcel.first + start] = reason
        self._settle(parcel, _REFUSED)
        if (
            not self.packing.path
            and len(self.refusals) >= _REFUSALS_OF_NOBODY
            and self.tally.statuses
            and self.tally.statuses.keys() <= _NOBODY_THERE
        ):
            self.nobody = ConfigurationError(
                f"nothing takes records at this address: {self.tally.last} for each of the first {len(self.refusals)}",
                do="correct `url` and `method`",
                where=self.host,
            )
            self.errors[0] = self.nobody

    def _settle(self, parcel: _Parcel, state: int) -> None:
        start, count = parcel.pieces.pop()
        first = parcel.first + start
        self._states[first : first + count] = bytes([state]) * count
        if parcel.pieces:
            self._ready.appendleft(parcel)
        else:
            self._leave(parcel)

    def _nobody_answers(self) -> bool:
        """Whether every answer so far says that there is nothing, which with `path` may be true of each record."""
        statuses = self.tally.statuses
        return bool(statuses) and statuses.keys() <= _NOBODY_THERE and not self.packing.path

    def receipt(self) -> Receipt:
        """What is answered for: everything, or what comes before the first record that is not settled.

        Raises what stopped the round where nothing before it was settled.
        """
        if self.nobody is not None:
            raise self.nobody
        detail = {"host": self.host, **self.tally.detail()}
        seqs: list[int] = self.delivery.rows[records.SEQ].to_pylist()
        end = self._states.find(_UNSETTLED)
        if end < 0:
            return Receipt(self._states.count(_ACCEPTED), self._refused(seqs, len(seqs)), detail)
        error = self.errors[min(self.errors)]
        ahead = [seq for seq, state in zip(seqs[end:], self._states[end:], strict=True) if state == _ACCEPTED]
        retry = error if isinstance(error, RetryLater) else None
        if not end and (retry is None or not ahead):
            raise error
        # What is settled is answered for; the road comes back with the rest, and meets the error first if it stays.
        accepted = self._states.count(_ACCEPTED, 0, end)
        upto = seqs[end - 1] if end else self.delivery.after
        return Receipt(accepted, self._refused(seqs, end), detail, upto=upto, retry=retry, ahead=ahead)

    def _refused(self, seqs: Sequence[int], end: int) -> tuple[Refusal, ...]:
        return tuple(Refusal(seqs[row], reason) for row, reason in sorted(self.refusals.items()) if row < end)


def written(delivery: Delivery, packing: Packing) -> Iterator[tuple[tuple[int, ...], str]]:
    """What each request of a delivery would say, with the seqs in it. Records that cannot be put into one are left out."""
    for parcel in _parcels(delivery, packing, "none"):
        try:
            text = packing.text(parcel.shown, parcel.rule)
        except RecordRefused:
            continue
        yield tuple(record["metadata"]["seq"] for record in parcel.shown), text


def _parcels(delivery: Delivery, packing: Packing, order: Order) -> Iterator[_Parcel]:
    """The rows, so many to a request. Where bodies are templates, records of different rules never share one."""
    size, rules = packing.batch, delivery.rules
    apart = bool(rules) and any(template is not None for template in packing.templates.values())
    chunk = max(size, _CHUNK_ROWS // size * size)
    for start in range(0, len(delivery.rows), chunk):
        shown = delivery.records(start, chunk)
        first = 0
        while first < len(shown):
            rule = rules[start + first] if rules else ""
            end = min(first + size, len(shown))
            if apart:
                end = next((at for at in range(first + 1, end) if rules[start + at] != rule), end)
            together = shown[first:end]
            yield _Parcel(start + first, together, rule, _lanes(together, order), [(0, len(together))])
            first = end


def _lanes(shown: Sequence[Record], order: Order) -> frozenset[str]:
    if order == "key":
        return frozenset(record["key"] for record in shown)
    return frozenset({""} if order == "strict" else ())
