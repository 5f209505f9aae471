"""Makes deliveries of the sizes that `batching` asks for, and says when there is not enough to make one yet."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.delivery.choosing import joined
from muxly_dagster.policy import Batching

NOTHING = records.ENVELOPE.empty_table()
"""No rows."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that go together: those chosen of the changes with seq in (after, upto]."""

    rows: pa.Table
    after: int
    upto: int

    def parts(self, most: int) -> Iterator["Piece"]:
        """The same in pieces of at most so many rows: what a batch waits for may be more than a destination takes at a time."""
        after, rows = self.after, self.rows
        while len(rows) > most:
            first, rows = rows.slice(0, most), rows.slice(most)
            yield Piece(first, after, after := first[records.SEQ][-1].as_py())
        yield Piece(rows, after, self.upto)


class Gathering:
    """Takes chosen stretches and gives them back in pieces, each at most `count` rows and about `bytes` large.

    With `age`, a piece that is not full is kept back while its oldest row is younger. Once one was old enough, all that is there goes.
    """

    def __init__(self, batching: Batching, now: dt.datetime, after: int) -> None:
        self._batching, self._now = batching, now
        self._parts: list[pa.Table] = []
        self._rows = self._bytes = 0
        self.after = self._upto = after
        """Up to where everything was given back."""
        self._flushing = batching.patience is None

    def take(self, rows: pa.Table, upto: int) -> Iterator[Piece]:
        """Add what was chosen of the changes up to `upto`; gives the pieces that can go."""
        while len(rows):
            room = self._room(rows)
            if room >= len(rows):
                break
            if room:
                self._add(rows.slice(0, room), rows[records.SEQ][room - 1].as_py())
                rows = rows.slice(room)
            yield self._piece()
        self._add(rows, upto)
        if self._is_full or not self._rows or self._is_old:
            yield self._piece()

    @property
    def kept_back(self) -> int | None:
        """The seq of the first row that is kept back, before which everything can be settled; None where nothing is kept back."""
        return self._parts[0][records.SEQ][0].as_py() if self._rows else None

    @property
    def waits_until(self) -> dt.datetime | None:
        """When the oldest row that is kept back is old enough; None where nothing is."""
        patience = self._batching.patience
        return self._oldest + patience if self._rows and patience is not None else None

    @property
    def wants_more(self) -> bool:
        """Whether further changes could make a piece of what is kept back."""
        return bool(self._batching.count or self._batching.most_bytes)

    # ---- how ----------------------------------------------------------------------------------------------------------

    @property
    def _oldest(self) -> dt.datetime:
        oldest: dt.datetime = self._parts[0][records.AT][0].as_py()
        return oldest

    @property
    def _is_old(self) -> bool:
        until = self.waits_until
        if until is not None and self._now >= until:
            self._flushing = True
        return self._flushing

    @property
    def _is_full(self) -> bool:
        count, most = self._batching.count, self._batching.most_bytes
        return bool((count and self._rows >= count) or (most and self._bytes >= most))

    def _room(self, rows: pa.Table) -> int:
        """How many of these rows still fit; at least one goes into an empty piece, however large."""
        count, most = self._batching.count, self._batching.most_bytes
        room = len(rows) if count is None else count - self._rows
        if most is not None:
            each = max(1, rows.nbytes // len(rows))
            room = min(room, max((most - self._bytes) // each, 0 if self._rows else 1))
        return max(0, room)

    def _add(self, rows: pa.Table, upto: int) -> None:
        if len(rows):
            self._parts.append(rows)
            self._rows += len(rows)
            self._bytes += rows.nbytes
        self._upto = upto

    def _piece(self) -> Piece:
        rows = joined(self._parts) if self._parts else NOTHING
        piece = Piece(rows, self.after, self._upto)
        self._parts, self._rows, self._bytes, self.after = [], 0, 0, self._upto
        return piece
