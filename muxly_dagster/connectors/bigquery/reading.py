"""The Storage Read API: a session of parallel streams, each read in a thread of its own and resumed at its offset when it breaks.

Source: google.cloud.bigquery.storage.v1, BigQueryRead. A session lasts six hours; a row belongs to one stream, and a stream's order stays.
"""

import datetime as dt
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa

from muxly_dagster.connectors.bigquery.refusals import in_person, in_words
from muxly_dagster.connectors.bigquery.service import Service
from muxly_dagster.errors import MuxlyError, SourceError

_PIECE_ROWS, _PIECE_BYTES = 32_768, 16 << 20
"""A piece is handed on when it has so many rows or bytes: answers of the API hold some hundreds of rows each."""

_PATIENCE = 60.0  # seconds that a request is tried again for, where the trouble may pass
_GLANCE = 0.1  # seconds between looks at whether reading was given up

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """A read session: its streams, with the rows read of each so far (None: all of them), and when it ends."""

    name: str
    expires: dt.datetime
    streams: Mapping[str, int | None]

    def expired(self) -> bool:
        """Whether its time is over, or nearly so."""
        return dt.datetime.now(dt.UTC) > self.expires - dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Piece(Generic[T]):
    """Rows of one stream that follow each other, in the shape asked for, and the offset behind them (None: the stream is through)."""

    stream: str
    offset: int | None
    rows: T | None


def open_session(
    service: Service,
    path: str,
    *,
    columns: tuple[str, ...] = (),
    restriction: str = "",
    snapshot: dt.datetime | None = None,
    streams: int,
    where: str,
) -> Session:
    """Begin to read a table: these columns (none: all), the rows that meet a condition, as the table was at `snapshot`.

    `streams` is the most to read at once; BigQuery gives fewer for small tables and none for empty ones. Raises SignInError,
    RetryLater, ConfigurationError, SourceError.
    """
    from google.cloud.bigquery_storage_v1 import types

    options = types.ReadSession.TableReadOptions(
        selected_fields=list(columns),
        row_restriction=restriction,
        arrow_serialization_options=types.ArrowSerializationOptions(
            buffer_compression=types.ArrowSerializationOptions.CompressionCodec.LZ4_FRAME
        ),
    )
    asked = types.ReadSession(table=path, data_format=types.DataFormat.ARROW, read_options=options)
    if snapshot is not None:
        asked.table_modifiers = types.ReadSession.TableModifiers(snapshot_time=snapshot)
    with in_words(where):
        made = _refreshed(
            service,
            lambda: service.storage.create_read_session(
                parent=f"projects/{service.job_project}", read_session=asked, max_stream_count=streams, retry=_retry(), timeout=_PATIENCE
            ),
        )
    return Session(made.name, made.expire_time.replace(tzinfo=dt.UTC), {stream.name: 0 for stream in made.streams})


def read(service: Service, session: Session, shape: Callable[[pa.Table], T], where: str) -> Iterator[Piece[T]]:
    """Every stream from its offset on, pieces as they come. `shape` is called in the threads that read.

    Raises SignInError, RetryLater, SourceError, SessionLost; pieces that came before are good.
    """
    waiting = {name: offset for name, offset in session.streams.items() if offset is not None}
    with _Threads(service, shape, where, room=2 * len(waiting) + 1) as threads:
        for name, offset in waiting.items():
            threads.start(name, offset)
        left = len(waiting)
        while left:
            piece = threads.next()
            left -= piece.offset is None
            yield piece


class SessionLost(SourceError):
    """The read session is gone: what is left has to be read in a new one."""


class _Threads(Generic[T]):
    """The threads of one session. Leaving the block stops them, whatever they are doing."""

    def __init__(self, service: Service, shape: Callable[[pa.Table], T], where: str, room: int) -> None:
        self._service, self._shape, self._where = service, shape, where
        self._pieces: queue.Queue[Piece[T] | BaseException] = queue.Queue(room)
        self._threads: list[threading.Thread] = []
        self._calls: dict[str, Any] = {}
        self._stop = threading.Event()

    def __enter__(self) -> "_Threads[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for call in list(self._calls.values()):
            call.cancel()
        for thread in self._threads:
            thread.join()

    def start(self, stream: str, offset: int) -> None:
        """Read a stream from here on."""
        thread = threading.Thread(target=self._run, args=(stream, offset), name="bigquery-stream", daemon=True)
        self._threads.append(thread)
        thread.start()

    def next(self) -> Piece[T]:
        """The next piece of any stream. Raises what a thread met."""
        found = self._pieces.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def _run(self, stream: str, offset: int) -> None:
        try:
            for rows, behind in self._pieces_of(stream, offset):
                self._hand_on(Piece(stream, behind, self._shape(rows)))
            self._hand_on(Piece(stream, None, None))
        except MuxlyError as error:
            self._hand_on(error)
        except Exception as error:  # whatever Google's libraries raise; handed to the thread that waits
            self._hand_on(_lost(error, self._where) or _in_person(error, self._where))

    def _pieces_of(self, stream: str, offset: int) -> Iterator[tuple[pa.Table, int]]:
        """Rows in pieces of a good size, each with the offset behind it."""
        held: list[pa.RecordBatch] = []
        rows = size = 0
        batches, trouble = self._batches(stream, offset), None
        while True:
            try:
                batch = next(batches, None)
            except Exception as error:  # what has come before is kept, and read no second time
                batch, trouble = None, error
            if held and (batch is None or rows >= _PIECE_ROWS or size >= _PIECE_BYTES):
                offset += rows
                yield pa.Table.from_batches(held).combine_chunks(), offset
                held, rows, size = [], 0, 0
            if batch is None:
                break
            held.append(batch)
            rows, size = rows + len(batch), size + batch.nbytes
        if trouble is not None:
            raise trouble

    def _batches(self, stream: str, offset: int) -> Iterator[pa.RecordBatch]:
        """Record batches of a stream. Google's client takes up broken connections at the offset by itself; a token that ran out does not
        come back to it, so that is seen to here."""
        from google.api_core.exceptions import Unauthenticated

        signed_in_at = -1
        while not self._stop.is_set():
            try:
                for batch in self._answers(stream, offset):
                    offset += len(batch)
                    yield batch
                return
            except Unauthenticated:
                if signed_in_at == offset:
                    raise
                signed_in_at = offset
                self._service.sign_in_anew()

    def _answers(self, stream: str, offset: int) -> Iterator[pa.RecordBatch]:
        self._service.sign_in()
        call = self._service.storage.read_rows(stream, offset, retry=_retry())
        self._calls[stream] = call
        schema: pa.Schema | None = None
        for answer in call:
            if self._stop.is_set():
                return
            if answer.arrow_schema.serialized_schema:  # with the first answer of every call
                schema = pa.ipc.read_schema(pa.py_buffer(answer.arrow_schema.serialized_schema))
            if answer.row_count:
                if schema is None:
                    raise SourceError("BigQuery sent rows without their schema", do="try again", where=self._where)
                yield pa.ipc.read_record_batch(pa.py_buffer(answer.arrow_record_batch.serialized_record_batch), schema)

    def _hand_on(self, found: Piece[T] | BaseException) -> None:
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._pieces.put(found, timeout=_GLANCE)
                return


def _refreshed(service: Service, call: Callable[[], T]) -> T:
    from google.api_core.exceptions import Unauthenticated

    service.sign_in()
    try:
        return call()
    except Unauthenticated:
        service.sign_in_anew()
        return call()


def _retry() -> Any:
    """Tries again what may pass. Too many requests at once is among it, which Google's own default gives up on."""
    from google.api_core.exceptions import ResourceExhausted, ServiceUnavailable
    from google.api_core.retry import Retry, if_exception_type

    return Retry(if_exception_type(ServiceUnavailable, ResourceExhausted), initial=0.1, maximum=10, timeout=_PATIENCE)


def _lost(error: Exception, where: str) -> SessionLost | None:
    from google.api_core.exceptions import FailedPrecondition, NotFound

    if isinstance(error, NotFound | FailedPrecondition) and "session" in str(error).lower():
        return SessionLost("BigQuery has ended the read session", do="run the pull again", where=where)
    return None


def _in_person(error: Exception, where: str) -> BaseException:
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    return in_person(error, where) if isinstance(error, GoogleAPIError | GoogleAuthError) else error
