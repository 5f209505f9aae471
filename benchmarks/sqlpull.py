"""Measures a pull from Postgres: a table of ten columns into Arrow of the lake's types, into an empty lake, and again with nothing changed.

Run: `python -m benchmarks.sqlpull [--records N] [--rounds N]`. Of several rounds the best counts: the machine is shared. Each round is a
process of its own, so that its peak memory is the pull's alone.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from benchmarks.measure import run
from muxly_dagster import pulling
from muxly_dagster.assembly import Pull
from muxly_dagster.connectors.sql import Sql, SqlPull
from muxly_dagster.lake import Lake
from muxly_dagster.state import State

_TABLE = """
    create table events as select i::bigint as id, (i::bigint * 7919) % 100003 as customer,
      case i % 3 when 0 then 'open' when 1 then 'paid' else 'shipped' end as state, ((i % 1000000) / 100.0)::numeric(12, 2) as amount,
      (i % 977) / 3.0::float8 as share, i % 2 = 0 as paid, date '2024-01-01' + (i % 1000)::int as day,
      timestamptz '2024-01-01' + i * interval '1.000003 s' as updated_at, md5(i::text) as word,
      case when i % 5 = 0 then null else 'a longer text such as people write it ' || i end as note
    from generate_series(1, :records) i"""


@dataclass(frozen=True)
class Round:
    """Rows per second into Arrow, into an empty lake, over the same rows again; peak memory in MiB of the first pull, and of both."""

    arrow: float
    lake: float
    again: float
    peak: float
    peak_again: float


@contextmanager
def filled(records: int) -> Iterator[str]:
    """The URL of a database with the table."""
    from muxly_dagster_tests.peers import postgres as server

    with tempfile.TemporaryDirectory() as folder:
        address = server.shared(Path(folder), buffers="128MB")
        try:
            with server.fresh_database(address) as url:
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute(_TABLE.replace(":records", str(records)))
                    connection.execute("alter table events add primary key (id)")
                    connection.execute("vacuum analyze events")
                yield url
        finally:
            server.stop(Path(folder))


def measured(url: str) -> Round:
    """One round in a process of its own."""
    return Round(**json.loads(run([sys.executable, "-m", "benchmarks.sqlpull", "--url", url]).output))


def _round(url: str) -> Round:
    connector, settings = Sql.model_validate({"url": url}), SqlPull(stream="events")
    with tempfile.TemporaryDirectory() as folder:
        state = State.open(f"sqlite:///{folder}/state.db", Path(folder))
        pull = Pull("bench.events", "bench", connector, settings, connector.stream(settings))
        stored = []
        for _ in range(2):
            started = time.monotonic()
            outcome = pulling.pull(Lake(f"{folder}/lake"), state, pull, run_id="bench")
            stored.append((outcome.read / (time.monotonic() - started), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
        state.close()
    started = time.monotonic()
    rows = sum(len(batch.rows) for batch in connector.pull(settings, None, None))
    (first, peak), (again, peak_again) = stored
    return Round(rows / (time.monotonic() - started), first, again, peak, peak_again)


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.url:
        print(json.dumps(asdict(_round(arguments.url))))
        return
    with filled(arguments.records) as url:
        rounds = [measured(url) for _ in range(arguments.rounds)]
    print(f"{arguments.records:,} rows of 10 columns")
    for title in ("arrow", "lake", "again"):
        print(f"{title:12}{max(getattr(round_, title) for round_ in rounds):12,.0f} rows per second")
    for title in ("peak", "peak_again"):
        print(f"{title:12}{min(getattr(round_, title) for round_ in rounds):12,.0f} MiB")


if __name__ == "__main__":
    main()
