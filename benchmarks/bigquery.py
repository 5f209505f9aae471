"""Measures a pull from BigQuery: recorded answers of the Storage Read API into Arrow of the lake's types, and into the lake.

Run: `python -m benchmarks.bigquery [--records N] [--rounds N]`. Of several rounds the best counts: the machine is shared. The recording has
20 columns and is served by a process of its own.
"""

import argparse
import datetime as dt
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

from muxly_dagster import pulling
from muxly_dagster.assembly import Pull
from muxly_dagster.connectors.bigquery import Bigquery
from muxly_dagster.lake import Lake
from muxly_dagster.state import State
from muxly_dagster_tests.peers.bigquery import BigQuery
from muxly_dagster_tests.peers.bigquery_storage import Storage, serialized

_ANSWER_ROWS, _STREAMS, _TABLE = 8_192, 4, "bench.events"
_WORDS = np.array(["Berlin", "Oslo", "Lima", "Quito", "a longer text such as people write it"])


def table(records: int) -> pa.Table:
    """Rows as a table of events has them: numbers, texts, times, decimals, truth values."""
    numbers = np.arange(records, dtype=np.int64)
    moments = numbers * 1_000_003 + 1_767_225_600_000_000
    columns: dict[str, pa.Array] = {"id": pa.array(numbers)}
    columns |= {f"count_{n}": pa.array((numbers * (n + 7)) % 100_003) for n in range(5)}
    columns |= {f"share_{n}": pa.array((numbers % 977) / (n + 3)) for n in range(4)}
    columns |= {f"text_{n}": pa.array(_WORDS[(numbers + n) % len(_WORDS)]) for n in range(5)}
    columns |= {f"at_{n}": pa.array(moments + n).cast(pa.timestamp("us", "UTC")) for n in range(2)}
    columns["day"] = pa.array((numbers % 1000).astype(np.int32)).cast(pa.date32())
    columns["paid"] = pa.array(numbers % 2 == 0)
    columns["amount"] = pa.array(numbers % 1_000_000).cast(pa.decimal128(38, 9))
    return pa.table(columns)


class Recorded(Storage):
    """The stand-in's storage with answers that were made beforehand."""

    def record(self, rows: pa.Table) -> None:
        """Make the answers of every stream."""
        schema = types.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes())
        self.answers: list[list[types.ReadRowsResponse]] = []
        for number in range(self.streams):
            start, end = len(rows) * number // self.streams, len(rows) * (number + 1) // self.streams
            parts = [rows.slice(at, min(_ANSWER_ROWS, end - at)).combine_chunks() for at in range(start, end, _ANSWER_ROWS)]
            messages = [types.ArrowRecordBatch(serialized_record_batch=serialized(part, compressed=True)) for part in parts]
            answers = [types.ReadRowsResponse(row_count=len(p), arrow_record_batch=m) for p, m in zip(parts, messages, strict=True)]
            answers[0].arrow_schema = schema
            self.answers.append(answers)

    def _read(self, request: types.ReadRowsRequest, context: Any) -> Iterator[types.ReadRowsResponse]:
        yield from self.answers[int(request.read_stream.rpartition("/")[2])]


def serve(records: int) -> None:
    """Serve a recording until standard input ends; the connector's settings are the first line of the output."""
    rows = table(records)
    with BigQuery() as bigquery, Recorded(bigquery, streams=_STREAMS) as storage:
        bigquery.put(_TABLE, rows, key=("id",))
        storage.record(rows)
        auth = {"kind": "service_account", "key": bigquery.key()}
        print(json.dumps({"auth": auth, "api_endpoint": bigquery.url, "storage_endpoint": storage.url}), flush=True)
        sys.stdin.read()


@contextmanager
def served(records: int) -> Iterator[Bigquery]:
    """The connector beside a recording."""
    command = [sys.executable, "-m", "benchmarks.bigquery", "--serve", "--records", str(records)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        yield Bigquery.model_validate(json.loads(server.stdout.readline()))
        server.stdin.close()


def read(connector: Bigquery) -> float:
    """Rows per second into Arrow of the lake's types."""
    started = time.monotonic()
    rows = sum(len(batch.rows) for batch in connector.pull(connector.Pull.model_validate({"stream": _TABLE}), None, None))
    return rows / (time.monotonic() - started)


def store(connector: Bigquery) -> float:
    """Rows per second into an empty lake."""
    settings = connector.Pull.model_validate({"stream": _TABLE})
    with tempfile.TemporaryDirectory() as folder:
        state = State.open(f"sqlite:///{folder}/state.db", Path(folder))
        pull = Pull("bench.events", "bench", connector, settings, connector.stream(settings))
        started = time.monotonic()
        outcome = pulling.pull(Lake(f"{folder}/lake"), state, pull, run_id="bench")
        seconds = time.monotonic() - started
        state.close()
    return outcome.changed / seconds


def main() -> None:
    """Print one line per way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.records)
        return
    with served(arguments.records) as connector:
        print(f"{arguments.records:,} rows of {table(1).num_columns} columns, {dt.date.today()}")
        for title, way in (("into Arrow", read), ("into the lake", store)):
            print(f"{title:16}{max(way(connector) for _ in range(arguments.rounds)):12,.0f} rows per second")


if __name__ == "__main__":
    main()
