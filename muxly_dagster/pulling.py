"""The road in: a connector's batches into the lake, with the cursor in the same commit.

The next cursor is written to the state as row n+1; the Delta commit that stores the batch names n+1; the next run trusts the row
that the table names. Killed between the two, the row is one that nobody names, and the batch is read again.
"""

import logging
import time
from typing import Any

from muxly_dagster import records
from muxly_dagster.assembly import Pull
from muxly_dagster.connector import Batch, Cursor, Stream
from muxly_dagster.errors import MuxlyError
from muxly_dagster.lake import Lake, Writer
from muxly_dagster.outcome import Outcome, Progress
from muxly_dagster.state import DeadLetter, State

_log = logging.getLogger("muxly.pulling")

_QUARANTINED_TEXT = 64 << 10


def pull(
    lake: Lake,
    state: State,
    pull: Pull,
    *,
    run_id: str,
    progress: Progress | None = None,
    from_start: bool = False,
    flush_rows: int = 50_000,
) -> Outcome:
    """Read a stream's news into its lake table. `from_start` forgets the cursor and reads everything again.

    A checkpoint is made on the way whenever `flush_rows` changes are waiting (or 16 MiB).

    Raises BusyError when the pull is running already, and what the connector raises; what was stored until then stays.
    """
    started = time.monotonic()
    with state.lock(f"pull.{pull.name}"):
        if from_start:
            state.cursors.forget(pull.name)
        stream = pull.connector.resolve(pull.settings)
        key = tuple(pull.settings.key) if pull.settings.key is not None else stream.key
        with lake.writer(
            pull.name,
            key=key,
            run_id=run_id,
            contract=pull.settings.contract or stream.contract,
            appends=not key and stream.sync == "cursor",
            flush_rows=flush_rows,
        ) as writer:
            if stream.schema is not None and writer.table_id is None:
                writer.add(stream.schema.empty_table())  # an empty stream has its columns all the same
            run = _Run(state, pull, stream, writer, run_id, progress, from_start=from_start)
            written = run.read_all()
        state.cursors.succeeded(pull.name, writer.table_id or "")
        return Outcome(
            asset=pull.name,
            read=written.read + run.unreadable,
            changed=written.changed,
            refused=run.quarantined,
            seconds=time.monotonic() - started,
            metadata={
                "upserts": written.upserts,
                "deletes": written.deletes,
                "duplicates": written.duplicates,
                "quarantined": run.quarantined,
                "schema_changes": written.schema_changes,
                **({"flags": run.flags} if run.flags else {}),
            },
        )


class _Run:
    """One run of one pull: where it stands and how it saves its place."""

    def __init__(
        self, state: State, pull: Pull, stream: Stream, writer: Writer, run_id: str, progress: Progress | None, *, from_start: bool
    ) -> None:
        self._state, self._pull, self._stream, self._writer, self._run_id, self._progress = state, pull, stream, writer, run_id, progress
        self._from_start = from_start
        self._version = writer.cursor_version or 0
        self._safe: Cursor | None = None  # the newest cursor not yet stored
        self._loose = False  # rows were added behind the newest cursor
        self._held = False  # a span could not be cut: the cursor stays, so that the next pull says again what is gone
        self.unreadable = self.quarantined = 0
        self.flags: dict[str, int] = {}

    def read_all(self) -> Any:
        """Read until the connector has no more. On a MuxlyError, first keep what is safe to keep."""
        cursor = self._cursor()
        known = self._writer.schema if self._writer.table_id else self._stream.schema
        try:
            for batch in self._pull.connector.pull(self._pull.settings, cursor, known):
                self._take(batch)
        except MuxlyError:
            if not self._writer.failed:
                self._checkpoint()
            raise
        self._checkpoint()
        # A record that could not be read may be one that the lake holds: no telling what was deleted.
        whole = self._stream.sync == "full" and not self.quarantined
        written = self._writer.finish(whole=whole)
        if whole or self._stream.sync == "full":
            self._state.ledger.resolve_unseen(self._pull.name, self._run_id)
        return written

    def _cursor(self) -> Cursor | None:
        if self._writer.table_id is None:
            if self._state.cursors.last_success(self._pull.name):
                raise MuxlyError(
                    f"the lake table {self._pull.name} is gone, though its pull has run before",
                    do=f"restore it from a backup, or run `muxly run {self._pull.name} --from-start` to pull everything again",
                )
            return None
        if self._from_start or self._writer.cursor_version is None:
            return None
        cursor = self._state.cursors.read(self._pull.name, self._version)
        if cursor is None and self._writer.appends:
            raise MuxlyError(
                f"the state knows no cursor of {self._pull.name}, though its lake table does, and its records have no key to tell them by",
                do=f"restore the state database, or store everything once more with `muxly run {self._pull.name} --from-start`",
            )
        return cursor

    def _take(self, batch: Batch) -> None:
        letters = [self._letter(bad.text, bad.reason) for bad in batch.unreadable]
        self.unreadable += len(letters)
        if batch.cleared:
            self._writer.clear(*batch.cleared)
        for flag, value in batch.metadata.items():
            if value and len(batch.rows):
                self.flags[flag] = self.flags.get(flag, 0) + len(batch.rows)
        if len(batch.rows):
            self._writer.add(batch.rows, batch.metadata)
        for rows, reason in self._writer.take_rejected():
            letters += [self._letter(_text(row), reason) for row in rows.to_pylist()]
        if letters:
            self.quarantined += len(letters)
            self._state.ledger.shelve(letters)
        if batch.deletes is not None:
            self._writer.delete(batch.deletes)
        if batch.alive is not None:
            self._writer.alive(batch.alive)
        for span in batch.complete:
            if not self.quarantined:
                self._writer.complete(span)
            elif not self._held and self._writer.lacks(span):  # what seems gone may be what could not be read
                self._held = True
                _log.warning("%s: some records could not be read, so what is gone cannot be told; the cursor stays here", self._pull.name)
        if batch.cursor is not None and not self._held:
            self._safe = batch.cursor
        self._loose = batch.cursor is None or self._held
        if self._writer.full:
            self._checkpoint()
        if self._progress:
            self._progress(self._pull.name, self._writer.written.read + self.unreadable)

    def _checkpoint(self) -> None:
        """Store what is pending, and the newest safe cursor with it.

        Rows behind that cursor may go along where reading them again changes nothing; keyless appends have to wait.
        """
        if self._writer.appends and self._loose:
            return
        self._writer.settle()
        if self._safe is None:
            self._writer.commit()
        elif self._writer.pending or not self._version:  # the first cursor needs a commit that names it, even one of no rows
            self._state.cursors.write(self._pull.name, self._version + 1, self._safe, self._writer.table_id or "")
            self._writer.commit(self._version + 1)
            self._version += 1
            self._let_go(self._safe)
        else:
            self._state.cursors.write(self._pull.name, self._version, self._safe, self._writer.table_id or "")
            self._let_go(self._safe)

    def _let_go(self, cursor: Cursor) -> None:
        """Everything up to the cursor is stored, whatever happens from here on."""
        self._safe = None
        self._pull.connector.stored(self._pull.settings, cursor)

    def _letter(self, text: str, reason: str) -> DeadLetter:
        return DeadLetter("pull", self._pull.name, reason, text[:_QUARANTINED_TEXT], self._run_id)


def _text(row: dict[str, Any]) -> str:
    return records.to_json(row).decode()
