"""Marks that are looked for or brought in together."""

from typing import Any, TypeAlias

import numpy as np

from muxly_dagster.state.posts import MARK

_ONE, _LOW = np.uint64(1), np.uint64(63)
_SHIFTS = tuple(np.uint64(shift) for shift in (6, 12, 18))


Keys: TypeAlias = "np.ndarray[Any, np.dtype[np.uint32]]"


def keys_of(marks: bytes) -> Keys:
    """A key of each mark, by which they are spread: of its bytes, some that no two streams or ids have in common but by chance."""
    return np.frombuffer(marks, "<u4")[2 :: MARK // 4]


class Batch:
    """Some marks, one behind the other, and what filters want to know of them, worked out once for all filters.

    `words` chooses a word of a filter for each, `bits` some bits in it: hashes by the last 8 of a mark's 16 bytes, which are one already.
    """

    __slots__ = ("bits", "marks", "words")

    def __init__(self, marks: bytes) -> None:
        self.marks = marks
        choice = np.frombuffer(marks, "<u4")[3 :: MARK // 4].astype(np.uint64)
        self.words = keys_of(marks)
        self.bits = _ONE << (choice & _LOW)
        for shift in _SHIFTS:
            self.bits |= _ONE << (choice >> shift & _LOW)

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, at: int) -> bytes:
        return self.marks[at * MARK : (at + 1) * MARK]

    @property
    def may_repeat(self) -> bool:
        """Whether a mark may be there twice; where it is so, this is true."""
        keys = np.sort(np.frombuffer(self.marks, "<u8")[1::2])
        return bool((keys[1:] == keys[:-1]).any())
