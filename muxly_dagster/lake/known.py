"""What the newest version of every record looks like, as hashes: how a pull tells what really changed.

Held as sorted numpy arrays, 17 bytes a record, so that two million records cost 34 MB and a lookup of a few thousand keys a
millisecond. Keys are told apart by 64-bit XXH3: among ten million keys the odds that any two meet are 3 in a million; if they do,
both are delivered again with every pull, and a deletion of one of them is noticed late. Nothing is lost.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_LARGEST_RUN = 1 << 18


@dataclass(slots=True)
class _Run:
    """Keys in ascending order, each with its content's hash and whether this pull has seen it."""

    keys: Hashes
    contents: Hashes
    seen: Mask


def newest(keys: Hashes, seqs: Hashes, deleted: Mask) -> npt.NDArray[np.intp]:
    """Where, in a log in any order, the newest change of each key stands that is not deleted; in ascending order of the keys."""
    order = np.lexsort((seqs, keys))
    last = np.append(keys[order][1:] != keys[order][:-1], True) if len(keys) else np.zeros(0, np.bool_)
    return order[last & ~deleted[order]]


class KnownRows:
    """Key hash → content hash of the newest version of each record that is not deleted."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []  # newest first; a key lives in one run only

    def __len__(self) -> int:
        return sum(len(run.keys) for run in self._runs)

    @classmethod
    def from_log(cls, keys: Hashes, contents: Hashes, seqs: Hashes, deleted: Mask) -> "KnownRows":
        """The state after a log of changes, given in any order."""
        at = newest(keys, seqs, deleted)
        known = cls()
        if len(at):
            known._runs = [_Run(keys[at], contents[at], np.zeros(len(at), np.bool_))]
        return known

    def learn(self, keys: Hashes, contents: Hashes) -> Mask:
        """Take in a batch with distinct keys, mark them as seen and answer which of them are new or changed."""
        changed = np.ones(len(keys), np.bool_)
        fresh = np.ones(len(keys), np.bool_)
        for run in self._runs:
            at = np.searchsorted(run.keys, keys)
            at[at == len(run.keys)] = 0
            hit = run.keys[at] == keys
            fresh &= ~hit
            changed[hit] = run.contents[at[hit]] != contents[hit]
            run.contents[at[hit]] = contents[hit]
            run.seen[at[hit]] = True
        if fresh.any():
            order = np.argsort(keys[fresh])
            self._add(_Run(keys[fresh][order], contents[fresh][order], np.ones(len(order), np.bool_)))
        return changed

    def _add(self, run: _Run) -> None:
        """Merge runs of like size, so that there are few; not the largest, or merging them would be the peak of memory."""
        while self._runs and len(self._runs[0].keys) < 2 * len(run.keys) and len(self._runs[0].keys) + len(run.keys) <= _LARGEST_RUN:
            other = self._runs.pop(0)
            keys = np.concatenate([run.keys, other.keys])
            order = np.argsort(keys, kind="stable")
            run = _Run(keys[order], np.concatenate([run.contents, other.contents])[order], np.concatenate([run.seen, other.seen])[order])
        self._runs.insert(0, run)

    def see(self, keys: Hashes) -> None:
        """Mark records as seen without taking in their content; keys that there are none of are passed over."""
        for run in self._runs:
            at = np.searchsorted(run.keys, keys)
            at[at == len(run.keys)] = 0
            run.seen[at[run.keys[at] == keys]] = True

    def forget(self, keys: Hashes) -> Mask:
        """Records that are gone: drop these distinct keys, and answer which of them there were."""
        found = self.holds(keys)
        gone = np.sort(keys[found])
        if len(gone):
            kept = [(run, ~contains(gone, run.keys)) for run in self._runs]
            self._runs = [_Run(run.keys[keep], run.contents[keep], run.seen[keep]) for run, keep in kept if keep.any()]
        return found

    def holds(self, keys: Hashes) -> Mask:
        """Which of these keys there are."""
        found = np.zeros(len(keys), np.bool_)
        for run in self._runs:
            found |= contains(run.keys, keys)
        return found

    def unseen(self) -> Hashes:
        """Keys that this pull has not met, in ascending order."""
        return np.sort(np.concatenate([run.keys[~run.seen] for run in self._runs])) if self._runs else np.zeros(0, np.int64)


def contains(sorted_keys: Hashes, keys: Hashes) -> Mask:
    """Which of `keys` are in `sorted_keys`."""
    if not len(sorted_keys):
        return np.zeros(len(keys), np.bool_)
    at = np.searchsorted(sorted_keys, keys)
    at[at == len(sorted_keys)] = 0
    return np.asarray(sorted_keys[at] == keys)


def last_of_each(keys: Hashes) -> npt.NDArray[np.intp]:
    """The position of each key's last occurrence."""
    reversed_first = np.unique(keys[::-1], return_index=True)[1]
    return len(keys) - 1 - reversed_first
