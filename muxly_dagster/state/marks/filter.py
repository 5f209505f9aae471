"""A filter of marks: of thousands at a time, it says which were certainly never added to it."""

import numpy as np

from muxly_dagster.state.marks.batch import Batch


class MarkFilter:
    """A Bloom filter whose bits for a mark lie in one word of 64 (a blocked one), so that a mark costs one look into memory.

    Libraries take marks one by one, and ten times as long: all marks of a transaction are looked up here at once.
    """

    def __init__(self, size: int) -> None:
        """`size` in bytes, a power of two."""
        self._words = np.zeros(size // 8, np.uint64)
        self._mask = np.uint32(len(self._words) - 1)
        self.size, self.count = size, 0

    @staticmethod
    def room_in(size: int) -> int:
        """How many marks make a filter of a size full: it lets about 1 of 2,000 unknown ones through then."""
        return size // 4

    @property
    def is_full(self) -> bool:
        """Whether more marks are in it than it has room for. More may come all the same."""
        return self.count > self.room_in(self.size)

    def add(self, batch: Batch) -> None:
        """Add marks."""
        np.bitwise_or.at(self._words, batch.words & self._mask, batch.bits)  # two marks may share a word
        self.count += len(batch)

    def perhaps(self, batch: Batch) -> list[int]:
        """The places of those marks that may have been added."""
        found: list[int] = np.flatnonzero((self._words[batch.words & self._mask] & batch.bits) == batch.bits).tolist()
        return found
