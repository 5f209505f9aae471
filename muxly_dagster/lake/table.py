"""One table of the lake, as it stood when it was opened: its changes, its current rows."""

import datetime as dt
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from muxly_dagster import records
from muxly_dagster.errors import BusyError, MuxlyError
from muxly_dagster.lake.known import KnownRows, newest

if TYPE_CHECKING:
    import pyarrow.dataset as ds

Seqs = np.ndarray[Any, np.dtype[np.int64]]

CURSOR_TRANSACTION = "muxly"
"""The application id under which a commit names the state's cursor row that belongs to it."""

HEAD_TRANSACTION = "muxly.head"
"""The application id under which every commit names the seq it ends at. Delta lets only one of two such commits at once through."""

_KEY = "key: "


def describe_key(key: tuple[str, ...]) -> str:
    """A table's description in Delta's metadata: the key columns, which Delta has no other place for."""
    return _KEY + records.to_json(key).decode()


def read_key(description: str | None) -> tuple[str, ...]:
    """The key columns that `describe_key` wrote."""
    return tuple(orjson.loads(description.removeprefix(_KEY))) if description and description.startswith(_KEY) else ()


def unreadable(name: str, where: str, error: Exception) -> MuxlyError:
    """The error for a table whose files are damaged or gone."""
    return MuxlyError(
        f"the lake table {name} cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}",
        where=where,
        do=f"restore its files from a backup, or move the folder away and run `muxly run {name} --from-start`",
    )


def unwritable(name: str, where: str, error: Exception, *, busy: bool = False) -> MuxlyError:
    """The error for a commit that failed; `busy` says that it met another one although the exception does not tell."""
    if busy or isinstance(error, CommitFailedError):
        return BusyError(f"another run wrote to {name} at the same time", do="run it again")
    return MuxlyError(
        f"{name} cannot be stored: {error}",
        where=where,
        do="free some space or check the folder's permissions, then run it again; nothing was lost",
    )


class LakeTable:
    """A snapshot of a table. Reads stay as of its opening, whatever is appended meanwhile."""

    def __init__(self, name: str, delta: DeltaTable) -> None:
        self.name, self.delta = name, delta
        self.table_id = str(delta.metadata().id)[:8]
        full = pa.schema(delta.schema().to_arrow())
        self.schema = records.data_schema(full)
        self.key = read_key(delta.metadata().description)
        self.head = self._head()

    @property
    def url(self) -> str:
        """Where the table lives."""
        return str(self.delta.table_uri)

    @property
    def cursor_version(self) -> int | None:
        """The number of the cursor row that the newest commit named; None if none ever did."""
        return self.delta.transaction_version(CURSOR_TRANSACTION)

    def _head(self) -> int:
        actions = pa.table(self.delta.get_add_actions(flatten=True))
        column = f"max.{records.SEQ}"
        return (pc.max(actions[column]).as_py() or 0) if column in actions.column_names else 0

    def dataset(self) -> "ds.Dataset":
        """All changes with all columns, for a scanner that prunes files by `_muxly_seq`."""
        return self.delta.to_pyarrow_dataset()

    def changes(self, after: int, upto: int) -> pa.Table:
        """The changes with seq in (after, upto], in order: envelope and data columns."""
        seq = pc.field(records.SEQ)
        with self._reading():
            rows = self._typed(self.dataset().to_table(filter=(seq > after) & (seq <= upto), use_threads=False))
        # Mostly they lie in order already, and sorting copies them.
        return rows if bool((np.diff(rows[records.SEQ].to_numpy()) > 0).all()) else rows.sort_by(records.SEQ)

    def row_bytes(self, seq: int) -> int:
        """About how many bytes a change takes in memory, by the file that holds this one."""
        with self._reading():
            for fragment in self.dataset().get_fragments(filter=pc.field(records.SEQ) == seq):
                groups = [fragment.metadata.row_group(n) for n in range(fragment.metadata.num_row_groups)]
                return int(sum(g.total_byte_size for g in groups) // max(1, sum(g.num_rows for g in groups))) + 1
        return 1

    def batches(self, columns: list[str], **scan: Any) -> Iterator[pa.RecordBatch]:
        """These columns of all changes, in no particular order; `scan` are a dataset scanner's options."""
        with self._reading():
            yield from self.dataset().to_batches(columns=columns, use_threads=False, **scan)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowInvalid) as error:
            raise unreadable(self.name, self.url, error) from error

    def _typed(self, rows: pa.Table) -> pa.Table:
        """Put back the field metadata that tells JSON columns, which a dataset scan may lose."""
        fields = [records.ENVELOPE.field(n) if n in records.ENVELOPE.names else self.schema.field(n) for n in rows.column_names]
        return pa.table(rows.columns, schema=pa.schema(fields))

    def known(self) -> KnownRows:
        """The hashes of all current rows."""
        keys, seqs, deleted, contents = self._log(records.HASH)
        return KnownRows.from_log(keys, contents, seqs, deleted)

    def current_seqs(self, *, upto: int | None = None) -> Seqs:
        """The seqs of the newest version of every record that is not deleted, ascending; as of the change `upto` where it is given."""
        keys, seqs, deleted = self._log(upto=upto)
        return np.sort(seqs[newest(keys, seqs, deleted)])

    def newest_seqs(self, *, upto: int) -> Seqs:
        """The seqs of the newest change of every record as of the change `upto`, deletions too, ascending."""
        keys, seqs, deleted = self._log(upto=upto)
        return np.sort(seqs[newest(keys, seqs, np.zeros_like(deleted))])

    def key_hashes(self, *, upto: int) -> Seqs:
        """The hashes (see `records.hash_texts`) of all keys that there were up to the change `upto`, deleted ones too; each once."""
        return np.unique(self._log(upto=upto)[0])

    def first_since(self, moment: dt.datetime) -> int:
        """The seq of the first change that was read at or after a moment; one beyond the newest where there is none."""
        first = self.head + 1
        for batch in self.batches([records.SEQ], filter=pc.field(records.AT) >= pa.scalar(moment, records.TIMESTAMP)):
            first = min(first, pc.min(batch.column(records.SEQ)).as_py() or first)
        return first

    def count_deletes(self, after: int) -> int:
        """How many of the changes behind `after` are deletions."""
        with self._reading():
            found: int = self.dataset().count_rows(filter=(pc.field(records.SEQ) > after) & (pc.field(records.OP) == "delete"))
        return found

    def _log(self, *more: str, upto: int | None = None) -> list[Any]:
        """All changes in no particular order, as arrays: key hashes, seqs, whether it is a delete, and what else is asked for."""
        early = {} if upto is None else {"filter": pc.field(records.SEQ) <= upto}
        parts: list[list[Any]] = [
            [np.zeros(0, np.int64)],
            [np.zeros(0, np.int64)],
            [np.zeros(0, np.bool_)],
            *([np.zeros(0, np.int64)] for _ in more),
        ]
        for batch in self.batches([records.SEQ, records.OP, records.KEY, *more], **early):
            parts[0].append(records.hash_texts(batch.column(records.KEY)))
            parts[1].append(batch.column(records.SEQ).to_numpy())
            parts[2].append(pc.equal(batch.column(records.OP), "delete").to_numpy(zero_copy_only=False))
            for part, name in zip(parts[3:], more, strict=True):
                part.append(batch.column(name).to_numpy())
        return [np.concatenate(part) for part in parts]

    def current_batches(self, columns: Iterable[str] | None = None, *, envelope: bool = False) -> Iterator[pa.RecordBatch]:
        """The current rows, a batch at a time: the data columns asked for, with the envelope if wanted."""
        return self.versions(self.current_seqs(), columns, envelope=envelope)

    def versions(self, wanted: Seqs, columns: Iterable[str] | None = None, *, envelope: bool = False) -> Iterator[pa.RecordBatch]:
        """The changes with these seqs (ascending), a batch at a time: the data columns asked for, with the envelope if wanted."""
        names = [*(columns if columns is not None else self.schema.names)]
        shown = pa.schema([*(records.ENVELOPE if envelope else []), *(self.schema.field(n) for n in names)])
        scan = list(dict.fromkeys([records.SEQ, *shown.names]))
        for batch in self.batches(scan, batch_readahead=2, fragment_readahead=1):
            seqs = batch.column(records.SEQ).to_numpy()
            at = np.searchsorted(wanted, seqs)
            at[at == len(wanted)] = 0
            rows = batch.filter(pa.array(wanted[at] == seqs)) if len(wanted) else batch.slice(0, 0)
            if len(rows):
                yield pa.record_batch([rows.column(n) for n in shown.names], schema=shown)

    def current_reader(self, columns: Iterable[str] | None = None) -> pa.RecordBatchReader:
        """The current rows as a stream of data columns."""
        names = list(columns) if columns is not None else self.schema.names
        return pa.RecordBatchReader.from_batches(pa.schema([self.schema.field(n) for n in names]), self.current_batches(names))

    def current(self, columns: Iterable[str] | None = None) -> pa.Table:
        """The current rows, all at once."""
        return self.current_reader(columns).read_all()

    def count_current(self) -> int:
        """How many current rows there are."""
        return len(self.current_seqs())

    def history_of(self, key: str) -> pa.Table:
        """All changes of one record, oldest first."""
        with self._reading():
            rows = self.dataset().to_table(filter=pc.field(records.KEY) == key)
        return self._typed(rows).sort_by(records.SEQ)
