"""Appends what really changed: compares rows with what the lake holds, fits them to its schema, commits with the cursor."""

import datetime as dt
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    ColumnProperties,
    CommitProperties,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError

from muxly_dagster import records
from muxly_dagster.connector import Contract, Span
from muxly_dagster.errors import MuxlyError
from muxly_dagster.lake import drift
from muxly_dagster.lake.deletions import EVERYTHING, Doomed, any_within, within
from muxly_dagster.lake.known import Hashes, KnownRows, Mask, contains, last_of_each
from muxly_dagster.lake.table import CURSOR_TRANSACTION, HEAD_TRANSACTION, LakeTable, describe_key, unwritable
from muxly_dagster.lake.tables import Tables

# Measured on wide text rows: without dictionaries, and with statistics for the seq alone, the writer does 2.3 times
# as many rows per CPU second, and the files are smaller.
_PARQUET = WriterProperties(
    compression="ZSTD",
    compression_level=1,
    data_page_size_limit=256 * 1024,  # every column keeps a page in memory
    default_column_properties=ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE"),
    column_properties={records.SEQ: ColumnProperties(dictionary_enabled=False, statistics_enabled="CHUNK")},
)
# Delta must list statistics of no other column: a dataset scan takes those that are listed but missing for nulls, and prunes the file.
_CONFIGURATION = {"delta.dataSkippingNumIndexedCols": "1"}
_FLUSH_BYTES = 16 << 20


@dataclass(slots=True)
class Written:
    """What a writer did so far. `duplicates` counts rows replaced by a later row of the same key in the same batch."""

    read: int = 0
    upserts: int = 0
    deletes: int = 0
    duplicates: int = 0
    schema_changes: list[str] = field(default_factory=list)
    head: int = 0

    @property
    def changed(self) -> int:
        """Changes appended."""
        return self.upserts + self.deletes


class Writer:
    """One run's appends to one table: add batches, commit on the way, finish.

    Rows with a key are compared with the newest version of that key. Without a key, rows are known by their content (`appends`
    False: identical rows are counted, so a whole pull can be compared), or each is a change of its own (`appends` True).
    Rows that cannot be stored are kept aside with the reason until `take_rejected`; finishing with some left is an error.
    """

    def __init__(
        self, tables: Tables, name: str, *, key: tuple[str, ...], run_id: str, contract: Contract, appends: bool, flush_rows: int
    ) -> None:
        self.name, self.key, self.appends = name, key, appends
        self._rejected: list[tuple[pa.Table, str]] = []
        self.written = Written()
        self.failed = False
        """Whether a commit failed. It may have come through all the same, so this writer must not commit again."""
        self._tables, self._run_id, self._contract, self._flush_rows = tables, run_id, contract, flush_rows
        self._table: LakeTable | None = tables.table(name)
        self._schema = self._table.schema if self._table else pa.schema([])
        self._known = self._table.known() if self._table and not appends else KnownRows()
        self._head = self._table.head if self._table else 0
        self._copies: Counter[int] = Counter()
        self._pending: list[pa.Table] = []
        self._pending_rows = self._pending_bytes = 0
        self._seen_columns: set[str] = set()
        self._doomed = Doomed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pending.clear()

    @property
    def table_id(self) -> str | None:
        """The table's id; None before its first commit."""
        return self._table.table_id if self._table else None

    @property
    def cursor_version(self) -> int | None:
        """The cursor row that the table's newest commit names."""
        return self._table.cursor_version if self._table else None

    @property
    def schema(self) -> pa.Schema:
        """The table's data columns, as they stand now."""
        return self._schema

    @property
    def pending(self) -> int:
        """Changes added but not yet committed, deletes that are only noted among them."""
        return self._pending_rows + len(self._doomed)

    @property
    def full(self) -> bool:
        """Whether so much is pending that it should be committed."""
        return self.pending >= self._flush_rows or self._pending_bytes >= _FLUSH_BYTES

    def add(self, rows: pa.Table, metadata: dict[str, Any] | None = None) -> int:
        """Take in rows of lake-typed data columns; answers how many of them were new or changed."""
        self.written.read += len(rows)
        rows = self._fit(self._without_missing_keys(rows))
        self._seen_columns.update(rows.column_names)
        if not len(rows):
            return 0
        hashes = records.content_hashes(rows)
        keys = self._keys(rows, hashes)
        if self.appends:
            chosen = np.arange(len(rows))
        else:
            key_hashes = records.hash_texts(keys)
            last = last_of_each(key_hashes)
            self.written.duplicates += len(rows) - len(last)
            self._doomed.spare(key_hashes[last])
            changed = self._known.learn(key_hashes[last], hashes[last])
            chosen = np.sort(last[changed])
        if len(chosen):
            op: records.Op = "append" if self.appends else "upsert"
            everything = len(chosen) == len(rows)
            self._append(
                op,
                keys if everything else keys.take(pa.array(chosen)),
                hashes[chosen],
                rows if everything else rows.take(pa.array(chosen)),
                metadata,
            )
            self.written.upserts += len(chosen)
        return len(chosen)

    def take_rejected(self) -> list[tuple[pa.Table, str]]:
        """Rows that could not be stored since the last call, each table with the reason."""
        rejected, self._rejected = self._rejected, []
        return rejected

    def commit(self, version: int | None = None) -> None:
        """Store what is pending in one Delta commit that names the cursor row `version`; with one to name, also where nothing is.

        Raises BusyError when another writer committed to this table in between.
        """
        if not self._pending and version is None:
            return
        if self.failed:
            raise MuxlyError(f"an earlier commit to {self.name} failed", do="run it again")
        parts = [self._conform_log(rows, self._schema) for rows in self._pending]
        self._store(pa.concat_tables(parts) if parts else self._nothing(), version)
        self._pending.clear()
        self._pending_rows = self._pending_bytes = 0

    def _nothing(self) -> pa.Table:
        return pa.schema([*records.ENVELOPE, *self._schema]).empty_table()

    def _store(self, rows: pa.Table, version: int | None) -> None:
        first = self._table is None
        try:
            write_deltalake(
                self._tables.path(self.name) if self._table is None else self._table.delta,
                rows,
                mode="error" if first else "append",
                schema_mode=None if first else "merge",
                name=self.name,
                description=describe_key(self.key),
                configuration=_CONFIGURATION if first else None,
                storage_options=self._tables.options,
                writer_properties=_PARQUET,
                commit_properties=self._commit_properties(self._head + len(rows), version),
                post_commithook_properties=PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False),
            )
        except (OSError, DeltaError) as error:
            self.failed = True
            made_meanwhile = first and not isinstance(error, OSError) and self._tables.table(self.name) is not None
            raise unwritable(self.name, self._tables.path(self.name), error, busy=made_meanwhile) from error
        self._table = self._tables.existing(self.name)
        self._head = self._table.head

    def _commit_properties(self, head: int, version: int | None = None) -> CommitProperties:
        """What a commit says about itself. The head makes two writers at once collide, so that no seq is ever given twice."""
        transactions = [Transaction(HEAD_TRANSACTION, head)]
        if version is not None:
            transactions.append(Transaction(CURSOR_TRANSACTION, version))
        return CommitProperties(app_transactions=transactions, custom_metadata={"muxly.run": self._run_id})

    def finish(self, *, whole: bool, version: int | None = None) -> Written:
        """Commit what is left. `whole` says that everything there is was added: what was not is deleted."""
        if self._rejected:
            rows, reason = self._rejected[0]
            shown = records.to_json(rows.slice(0, 1).to_pylist()[0]).decode()[:500]
            raise MuxlyError(f"{self.name} cannot store a record: {reason}; the record is {shown}", do="give every record a key")
        if whole and not self.appends:
            self.complete(EVERYTHING)
        self.settle()
        self.commit(version)
        if self._table is None:
            self._store(self._nothing(), version)
        if whole and self.written.read and self._table is not None:
            vanished = [name for name in self._schema.names if name not in self._seen_columns]
            self.written.schema_changes += [f"column {name} had no values" for name in vanished]
        self.written.head = self._head
        return self.written

    # ---- rows

    def _without_missing_keys(self, rows: pa.Table) -> pa.Table:
        missing = [name for name in self.key if name not in rows.column_names]
        if missing and len(rows):
            self._rejected.append((rows, f"the record has no key: {', '.join(missing)} is missing"))
            return rows.slice(0, 0)
        bad = None
        for name in () if missing else self.key:
            null = pc.is_null(rows[name])
            bad = null if bad is None else pc.or_(bad, null)
        if bad is None or not pc.any(bad).as_py():
            return rows
        self._rejected.append((rows.filter(bad), f"the record has no key: {', '.join(self.key)} is null"))
        return rows.filter(pc.invert(bad))

    def _keys(self, rows: pa.Table, hashes: npt.NDArray[np.int64]) -> pa.ChunkedArray:
        if self.key:
            return records.key_texts(rows, self.key)
        if self.appends:
            start = self._head + self._pending_rows + 1
            return pa.chunked_array([pa.array([f"#{n}" for n in range(start, start + len(rows))], pa.string())])
        texts = []
        for value in hashes.tolist():
            self._copies[value] += 1
            texts.append(f"{value & 0xFFFFFFFFFFFFFFFF:016x}#{self._copies[value]}")
        return pa.chunked_array([pa.array(texts, pa.string())])

    def _append(
        self, op: records.Op, keys: pa.ChunkedArray, hashes: npt.NDArray[np.int64], rows: pa.Table, metadata: dict[str, Any] | None
    ) -> None:
        count = len(rows)
        start = self._head + self._pending_rows + 1
        envelope = [
            pa.array(np.arange(start, start + count, dtype=np.int64)),
            pa.repeat(pa.scalar(op, pa.string()), count),
            keys,
            pa.array(hashes),
            pa.repeat(pa.scalar(dt.datetime.now(dt.UTC), records.TIMESTAMP), count),
            pa.repeat(pa.scalar(self._run_id, pa.string()), count),
            pa.repeat(pa.scalar(records.to_json(metadata).decode() if metadata else None, pa.string()), count),
        ]
        table = pa.table([*envelope, *rows.columns], schema=pa.schema([*records.ENVELOPE, *rows.schema]))
        self._pending.append(table)
        self._pending_rows += count
        self._pending_bytes += table.nbytes

    # ---- deletes

    def delete(self, keys: pa.Table) -> None:
        """Note that the records with these keys are gone; keys that are not there are passed over. Deletes are written by `settle`."""
        hashes = self._hashes_of(keys)
        self._doomed.add(hashes[self._known.forget(hashes)])

    def alive(self, keys: pa.Table) -> None:
        """Count the records with these keys as added, though their rows are not given: `complete` leaves them."""
        self._known.see(self._hashes_of(keys))

    def _hashes_of(self, keys: pa.Table) -> Hashes:
        if self.appends or not self.key:
            raise MuxlyError(f"{self.name} has no key, so no record of it can be told by one", do="give the stream a key")
        missing = [name for name in self.key if name not in self._schema.names]
        if missing or not len(keys):
            return np.zeros(0, np.int64)
        fitted = records.conform(keys.select(list(self.key)), pa.schema([self._schema.field(name) for name in self.key]))
        return np.unique(records.hash_texts(records.key_texts(fitted, self.key)))

    def clear(self, *spans: Span) -> None:
        """Delete every record in these spans, in one scan of the table however many they are."""
        self.settle()
        self._delete_where(lambda batch, hashes: self._known.holds(hashes) & np.logical_or.reduce([within(batch, span) for span in spans]))

    def complete(self, span: Span) -> None:
        """Delete the records in the span that were not added since this writer began."""
        self.settle()
        gone = self._known.unseen()
        if len(gone):
            self._delete_where(lambda batch, hashes: contains(gone, hashes) & within(batch, span))

    def lacks(self, span: Span) -> bool:
        """Whether the table holds records in the span that were not added since this writer began."""
        return self._table is not None and any_within(self._table.current_batches(envelope=True), self._known.unseen(), span)

    def settle(self) -> None:
        """Write the deletes that were noted, with each record's last values."""
        gone = self._doomed.take()
        if len(gone):
            self._delete_where(lambda _, hashes: contains(gone, hashes))

    def _delete_where(self, chosen: Callable[[pa.RecordBatch, Hashes], Mask]) -> None:
        self.commit()
        before = self._table
        if before is None:
            return
        for batch in before.current_batches(envelope=True):
            hashes = records.hash_texts(batch.column(records.KEY))
            hit = chosen(batch, hashes)
            if not hit.any():
                continue
            rows = pa.Table.from_batches([batch]).filter(pa.array(hit))
            data = records.conform(rows.select(before.schema.names), self._schema)
            self._append("delete", rows[records.KEY], np.zeros(len(rows), np.int64), data, None)
            self._known.forget(np.unique(hashes[hit]))
            self.written.deletes += len(rows)
            if self.full:
                self.commit()

    # ---- schema

    def _fit(self, rows: pa.Table) -> pa.Table:
        """Rows in the table's schema, after the contract has decided what becomes of drift."""
        if self._contract == "discard" and self._schema.names:
            rows, notes, rejected = drift.discard(rows, self._schema)
            self.written.schema_changes += [note for note in notes if note not in self.written.schema_changes]
            self._rejected += rejected
            return rows
        wider = records.widen_schema(self._schema, rows.schema)
        while True:
            try:
                fitted = records.conform(rows, wider)
                if not wider.equals(self._schema, check_metadata=True):
                    self._evolve(wider)
                return fitted
            except pa.ArrowInvalid:
                wider = drift.text_where_needed(rows, wider, self._schema)

    def _evolve(self, wider: pa.Schema) -> None:
        changes = drift.told(self._schema, wider)
        if self._schema.names and self._contract == "freeze":
            raise MuxlyError(
                f"the contract of {self.name} is frozen, but {'; '.join(changes)}",
                do="change the transform or source back, or set `contract: evolve` (take it in) or `contract: discard` (leave it out)",
            )
        stored = self._table.schema if self._table else pa.schema([])
        retyped = [f.name for f in stored if not f.equals(wider.field(f.name), check_metadata=True)]
        pending = [self._conform_log(rows, wider) for rows in self._pending]
        if retyped:
            self._try_cast(retyped, wider)
            self._rewrite(wider)
        if self._schema.names:
            self.written.schema_changes += changes
        self._pending, self._schema = pending, wider

    def _try_cast(self, names: list[str], wider: pa.Schema) -> None:
        """Raises pa.ArrowInvalid if a stored value does not fit its column's wider type, before anything is rewritten."""
        assert self._table is not None
        stored, to = pa.schema([self._table.schema.field(n) for n in names]), pa.schema([wider.field(n) for n in names])
        for batch in self._table.batches(names):
            records.conform(pa.table(batch.columns, schema=stored), to)

    def _rewrite(self, wider: pa.Schema) -> None:
        """Store the whole log again with wider types; Delta itself cannot change a column's type."""
        assert self._table is not None
        schema = pa.schema([f for f in wider if f.name in self._table.schema.names])
        old = self._table.dataset()
        batches = (
            batch
            for part in old.to_batches(use_threads=False)
            for batch in self._conform_log(self._table._typed(pa.Table.from_batches([part])), schema).to_batches()
        )
        reader = pa.RecordBatchReader.from_batches(pa.schema([*records.ENVELOPE, *schema]), batches)
        try:
            write_deltalake(
                self._table.delta,
                reader,
                mode="overwrite",
                schema_mode="overwrite",
                writer_properties=_PARQUET,
                commit_properties=self._commit_properties(self._head),
            )
        except (OSError, DeltaError) as error:
            raise unwritable(self.name, self._table.url, error) from error
        self._table = self._tables.existing(self.name)

    def _conform_log(self, rows: pa.Table, schema: pa.Schema) -> pa.Table:
        """Envelope and data columns with the data in this schema."""
        data = records.conform(rows.select(records.data_schema(rows.schema).names), schema)
        return pa.table([*rows.select(records.ENVELOPE.names).columns, *data.columns], schema=pa.schema([*records.ENVELOPE, *schema]))
