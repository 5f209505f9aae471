"""The Storage Read API of the BigQuery stand-in: a gRPC server made of the client package's own protobuf types."""

import datetime as dt
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

from muxly_dagster_tests.peers.bigquery import BigQuery
from muxly_dagster_tests.peers.bigquery_sql import Refused, matching, visible

_CODES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}


@dataclass
class Storage:
    """Serves the tables and results of `bigquery`. A session has up to `streams` streams, an answer `answer_rows` rows."""

    bigquery: BigQuery
    streams: int = 2
    answer_rows: int = 2
    lifetime: dt.timedelta = dt.timedelta(hours=6)
    sessions: list[types.CreateReadSessionRequest] = field(default_factory=list)
    reads: list[tuple[str, int]] = field(default_factory=list)
    rows_sent: Counter[str] = field(default_factory=Counter)
    fail_next: list[int] = field(default_factory=list)
    """HTTP statuses of the next requests, one each."""
    breaks_after: int | None = None
    """So many more requests are answered, then all are refused for good."""
    drops: list[tuple[int, str]] = field(default_factory=list)
    """Of the next reads, one each: so many answers, then this status (UNAVAILABLE: the connection is gone)."""

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._open: dict[str, tuple[pa.Table, bool]] = {}
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        handlers = {
            "CreateReadSession": grpc.unary_unary_rpc_method_handler(
                self._create, types.CreateReadSessionRequest.deserialize, types.ReadSession.serialize
            ),
            "ReadRows": grpc.unary_stream_rpc_method_handler(
                self._read, types.ReadRowsRequest.deserialize, types.ReadRowsResponse.serialize
            ),
        }
        service = "google.cloud.bigquery.storage.v1.BigQueryRead"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        local = grpc.local_server_credentials(grpc.LocalConnectionType.LOCAL_TCP)
        self._port = self._server.add_secure_port("127.0.0.1:0", local)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def forget(self) -> None:
        """End every session."""
        with self._lock:
            self._open.clear()

    def _admit(self, context: Any) -> None:
        """Raises Refused, or ends the call, where this request is not to be answered."""
        headers = dict(context.invocation_metadata())
        if not self.bigquery.may(headers.get("authorization", "")):
            raise Refused(401, "", "Request had invalid authentication credentials.")
        with self._lock:
            if self.fail_next:
                raise Refused(self.fail_next.pop(0), "", "as the test wants it")
            if self.breaks_after is not None:
                if not self.breaks_after:
                    context.abort(grpc.StatusCode.INTERNAL, "an internal error")
                self.breaks_after -= 1

    def _create(self, request: types.CreateReadSessionRequest, context: Any) -> types.ReadSession:
        try:
            self._admit(context)
            self.bigquery.permits("bigquery.readsessions.create", request.parent)
            self.sessions.append(request)
            rows = self._rows(request.read_session)
        except Refused as refused:
            context.abort(getattr(grpc.StatusCode, _CODES[refused.status]), refused.message)
        session = types.ReadSession(
            name=f"{request.parent}/locations/eu/sessions/{uuid.uuid4().hex}",
            data_format=types.DataFormat.ARROW,
            table=request.read_session.table,
        )
        session.expire_time = dt.datetime.now(dt.UTC) + self.lifetime
        session.arrow_schema = types.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes())
        session.estimated_row_count = len(rows)
        options = request.read_session.read_options.arrow_serialization_options
        compressed = options.buffer_compression == types.ArrowSerializationOptions.CompressionCodec.LZ4_FRAME
        count = min(self.streams, request.max_stream_count or self.streams, len(rows))
        for number in range(count):
            name = f"{session.name}/streams/{number}"
            start, end = len(rows) * number // count, len(rows) * (number + 1) // count
            with self._lock:
                self._open[name] = (rows.slice(start, end - start), compressed)
            session.streams.append(types.ReadStream(name=name))
        return session

    def _rows(self, asked: types.ReadSession) -> pa.Table:
        _, _, _, dataset, _, table = asked.table.split("/")
        if dataset == "_anonymous":
            return self.bigquery.results[table]
        relation = self.bigquery.relation(dataset, table)
        self.bigquery.permits("bigquery.tables.getData", f"table {dataset}.{table}")
        if relation.kind != "TABLE":
            raise Refused(400, "", "request failed: non-table entities cannot be read with the storage API")
        moment = asked.table_modifiers.snapshot_time
        rows = relation.at(moment.replace(tzinfo=dt.UTC) if asked.table_modifiers._pb.HasField("snapshot_time") else None)
        chosen = matching(rows, asked.read_options.row_restriction)
        wanted = set(asked.read_options.selected_fields)
        shown = visible(chosen)
        if wanted - set(shown.column_names):
            raise Refused(400, "", f"request failed: The following selected fields do not exist: {wanted}")
        return shown.select([name for name in shown.column_names if not wanted or name in wanted])

    def _read(self, request: types.ReadRowsRequest, context: Any) -> Iterator[types.ReadRowsResponse]:
        try:
            self._admit(context)
        except Refused as refused:
            context.abort(getattr(grpc.StatusCode, _CODES[refused.status]), refused.message)
        with self._lock:
            found = self._open.get(request.read_stream)
            drop = self.drops.pop(0) if self.drops else None
            self.reads.append((request.read_stream, request.offset))
        if found is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"there was an error operating on '{request.read_stream}': session expired")
        rows, compressed = found
        for number, start in enumerate(range(request.offset, len(rows), self.answer_rows)):
            if drop and number == drop[0]:
                context.abort(getattr(grpc.StatusCode, drop[1]), "as the test wants it")
            part = rows.slice(start, self.answer_rows).combine_chunks()
            answer = types.ReadRowsResponse(row_count=len(part))
            answer.arrow_record_batch = types.ArrowRecordBatch(serialized_record_batch=serialized(part, compressed=compressed))
            if not number:
                answer.arrow_schema = types.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes())
            self.rows_sent[request.read_stream] += len(part)
            yield answer


def serialized(rows: pa.Table, *, compressed: bool) -> bytes:
    """Rows as one encapsulated record batch message of Arrow IPC."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4" if compressed else None)
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_batch(rows.to_batches()[0])
    messages = pa.ipc.MessageReader.open_stream(sink.getvalue())
    return next(message for message in messages if message.type == "record batch").serialize().to_pybytes()
