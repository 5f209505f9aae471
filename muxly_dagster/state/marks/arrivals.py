"""Marks in memory, in order of arrival, until they are in the index."""

from collections.abc import Sequence

from muxly_dagster.state.marks.batch import Batch
from muxly_dagster.state.marks.filter import MarkFilter
from muxly_dagster.state.posts import MARK, pieces

_FILTER = 8 << 20  # bytes; in hundreds of thousands of marks, it lets one of a hundred thousand unknown ones through
_FEW = 8  # asked for: to search the rows for them costs less than to take all rows apart
_ROW = 64 << 10  # bytes up to which rows are joined, so that there are few to search


class Arrivals:
    """Marks, one behind the other, 16 bytes each; a set of them is made only once many are sent again."""

    def __init__(self) -> None:
        self._filter = MarkFilter(_FILTER)
        self._rows: list[bytes] = []
        self._apart: set[bytes] = set()  # the marks of so many rows
        self._taken = 0

    def __len__(self) -> int:
        return self._filter.count

    def add(self, row: Batch) -> None:
        """Take in a row."""
        if len(row):
            self._filter.add(row)
            if len(self._rows) > self._taken and len(self._rows[-1]) + len(row.marks) <= _ROW:
                self._rows[-1] += row.marks
            else:
                self._rows.append(row.marks)

    def take(self, others: "Arrivals") -> None:
        """Take in the rows of others."""
        for row in others._rows:
            self.add(Batch(row))

    def all(self) -> bytes:
        """All marks."""
        return b"".join(self._rows)

    def known(self, batch: Batch) -> Sequence[bytes]:
        """Those of some marks that are here."""
        perhaps = [batch[at] for at in self._filter.perhaps(batch)] if self._rows else []
        if len(perhaps) > _FEW:
            for row in self._rows[self._taken :]:
                self._apart.update(pieces(row, MARK))
            self._taken = len(self._rows)
        later = self._rows[self._taken :]
        return [mark for mark in perhaps if mark in self._apart or any(_holds(row, mark) for row in later)]


def _holds(row: bytes, mark: bytes) -> bool:
    at = row.find(mark)
    while at % MARK and at > 0:  # what it was taken for stands across two marks
        at = row.find(mark, at + 1)
    return at >= 0
