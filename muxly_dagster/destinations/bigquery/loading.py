"""Load jobs: rows as a Parquet file, or as JSON lines where a column is JSON, into a table, under an id of our choosing.

Source: jobs.insert with an upload; "Parquet conversions"; "Working with JSON data" (no JSON column is loaded from Parquet).
"""

import base64
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet

from muxly_dagster.destinations.bigquery.service import Service
from muxly_dagster.destinations.bigquery.types import Column
from muxly_dagster.errors import RetryLater

_EXACT_IN_A_DOUBLE = 2**53 - 1  # a longer number in JSON has to be text ("Loading JSON data", limitations)
_JOB_SECONDS = 600.0
_UPLOAD_RETRIES = 3
_UPLOAD_SECONDS = 300.0  # without a sign of life


def load(service: Service, rows: pa.Table, columns: Sequence[Column], table: str, job_id: str, *, staged: bool = False) -> None:
    """Add rows to a table, in one load job. A job that is there under the id already is believed.

    `rows` has the columns `columns`, in the types that `types.converted` gives. Raises RetryLater where the id was used up by somebody
    who took this job for lost.
    """
    from google.api_core.exceptions import Conflict
    from google.cloud import bigquery

    as_lines = not staged and any(column.kind == "JSON" for column in columns)
    config = bigquery.LoadJobConfig(
        schema=[schema_field(column, staged=staged) for column in columns],
        source_format=bigquery.SourceFormat.NEWLINE_DELIMITED_JSON if as_lines else bigquery.SourceFormat.PARQUET,
        write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
        create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
        labels=service.labels,
    )
    content = _lines(rows, columns) if as_lines else _parquet(rows)
    try:
        job = service.client.load_table_from_file(
            io.BytesIO(content),
            service.name(table),
            size=len(content),
            num_retries=_UPLOAD_RETRIES,
            job_id=job_id,
            location=service.location,
            job_config=config,
            timeout=_UPLOAD_SECONDS,
        )
    except Conflict:
        job = service.client.get_job(job_id, location=service.location, **service.asking)
    if job.job_type != "load":
        raise RetryLater("another run took this one for dead", do="see that a delivery runs in one place", where=service.name(table))
    job.result(retry=service.retry, timeout=_JOB_SECONDS)


def schema_field(column: Column, *, staged: bool = False) -> Any:
    """The column as the API has it."""
    from google.cloud import bigquery

    if staged:
        return bigquery.SchemaField(column.name, column.staged)
    if column.precision:
        return bigquery.SchemaField(column.name, column.kind, column.mode, precision=column.precision, scale=column.scale)
    return bigquery.SchemaField(column.name, column.kind, column.mode)


def _parquet(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(rows, sink, compression="snappy")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _lines(rows: pa.Table, columns: Sequence[Column]) -> bytes:
    """JSON lines; what JSON has no exact form for is text, as load jobs read it."""
    names = [column.name for column in columns]
    values = [_json_values(rows[column.name], column) for column in columns]
    return b"".join(orjson.dumps(dict(zip(names, row, strict=True)), option=orjson.OPT_APPEND_NEWLINE) for row in zip(*values, strict=True))


def _json_values(values: pa.ChunkedArray, column: Column) -> Iterable[Any]:
    plain: list[Any] = values.to_pylist()
    match column.kind:
        case "JSON":
            # As it stands: read and written, numbers could change. Within a value no line ends, but between two of them one may.
            return [None if v is None else orjson.Fragment(v.replace("\r", " ").replace("\n", " ")) for v in plain]
        case "INTEGER":
            return [str(v) if v is not None and abs(v) > _EXACT_IN_A_DOUBLE else v for v in plain]
        case "BYTES":
            return [None if v is None else base64.b64encode(v).decode() for v in plain]
        case "TIMESTAMP":
            return [None if v is None else f"{v.replace(tzinfo=None).isoformat(sep=' ', timespec='microseconds')} UTC" for v in plain]
        case "DATETIME":
            return [None if v is None else v.isoformat(sep=" ", timespec="microseconds") for v in plain]
        case "FLOAT":
            return [_float(v) for v in plain]
        case "NUMERIC" | "BIGNUMERIC":
            return [None if v is None else format(v, "f") for v in plain]
    return plain


def _float(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
