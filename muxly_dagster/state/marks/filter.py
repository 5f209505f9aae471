"""A filter of marks: of thousands at a time, it says which were certainly never added to it."""

import numpy as np

_ONE = np.uint64(1)
_LOW = np.uint64(63)
_SHIFTS = tuple(np.uint64(shift) for shift in (6, 12, 18))


class MarkFilter:
    """A Bloom filter whose bits for a mark lie in one word of 64 (a blocked one), so that a mark costs one look into memory.

    Libraries take marks one by one, and ten times as long: all marks of a transaction are looked up here at once. Marks are hashes; the
    bits are chosen by the last 8 of their 16 bytes.
    """

    def __init__(self, size: int) -> None:
        """`size` in bytes, a power of two."""
        self._words = np.zeros(size // 8, np.uint64)
        self._mask = np.uint32(len(self._words) - 1)
        self.size, self.count = size, 0

    @staticmethod
    def room_in(size: int) -> int:
        """How many marks make a filter of a size full: it lets about 1 of 200 unknown ones through then."""
        return size // 2

    @property
    def is_full(self) -> bool:
        """Whether more marks are in it than it has room for. More may come all the same."""
        return self.count > self.room_in(self.size)

    def add(self, marks: bytes) -> None:
        """Add marks, which lie one behind the other."""
        words, bits = self._bits(marks)
        np.bitwise_or.at(self._words, words, bits)  # two marks may share a word
        self.count += len(words)

    def perhaps(self, marks: bytes) -> list[int]:
        """The places of those of some marks, one behind the other, that may have been added."""
        words, bits = self._bits(marks)
        found: list[int] = np.flatnonzero((self._words[words] & bits) == bits).tolist()
        return found

    def _bits(self, marks: bytes) -> tuple["np.ndarray[tuple[int], np.dtype[np.uint32]]", "np.ndarray[tuple[int], np.dtype[np.uint64]]"]:
        quarters = np.frombuffer(marks, "<u4").reshape(-1, 4)
        choice = quarters[:, 3].astype(np.uint64)
        bits = _ONE << (choice & _LOW)
        for shift in _SHIFTS:
            bits |= _ONE << (choice >> shift & _LOW)
        return quarters[:, 2] & self._mask, bits
