"""Records that are gone: which keys wait to be deleted, and which rows lie in a span."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.connector import Span
from muxly_dagster.lake.known import Hashes, Mask, contains

EVERYTHING = Span()


class Doomed:
    """Keys of records that the provider says are gone, until their deletes are written: that costs a scan, so it is done for many."""

    def __init__(self) -> None:
        self._keys: Hashes = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, keys: Hashes) -> None:
        """These are gone."""
        self._keys = np.union1d(self._keys, keys)

    def spare(self, keys: Hashes) -> None:
        """These came back before their deletes were written: they changed, and that is all."""
        if len(self._keys):
            self._keys = np.setdiff1d(self._keys, keys)

    def take(self) -> Hashes:
        """All of them in ascending order, once."""
        keys, self._keys = self._keys, np.zeros(0, np.int64)
        return keys


def any_within(batches: Iterable[pa.RecordBatch], keys: Hashes, span: Span) -> bool:
    """Whether a row of the batches has one of these keys, in ascending order, and lies in the span."""
    if not len(keys):
        return False
    return any((contains(keys, records.hash_texts(batch.column(records.KEY))) & within(batch, span)).any() for batch in batches)


def within(batch: pa.RecordBatch, span: Span) -> Mask:
    """Which rows lie in the span. Rows without a value in its column lie in none."""
    if not span.column:
        return np.ones(len(batch), np.bool_)
    if span.column not in batch.schema.names:
        return np.zeros(len(batch), np.bool_)
    column = batch.column(span.column)
    inside = pc.is_valid(column)
    if span.start is not None:
        inside = pc.and_(inside, pc.greater_equal(column, pa.scalar(span.start, column.type)))
    if span.end is not None:
        inside = pc.and_(inside, pc.less(column, pa.scalar(span.end, column.type)))
    mask: npt.NDArray[np.bool_] = pc.fill_null(inside, False).to_numpy(zero_copy_only=False)
    return mask
