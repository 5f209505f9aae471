"""Measures an upsert of changed rows over existing ones in Postgres: by the destination alone, from the lake, and by dlt's merge.

Run: `python -m benchmarks.upsert [--records N] [--rounds N]`. A table of ten columns is filled first; then every row has changed.
Of several rounds the best counts: the machine is shared. Everything that is measured is a process of its own, with a database of its own
on the same server.
"""

import argparse
import decimal
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.measure import HERE, MUXLY, run
from muxly_dagster import records

RIVAL = Path(".venv-bench/bin/python").absolute()
_STRETCH = 250_000


@dataclass(frozen=True)
class Round:
    """Rows per second over existing rows, and of the first load; None where the rival is not installed.

    The same by CPU seconds of client and server together, which tell more on a machine that has other work to do.
    """

    alone: float
    first: float
    from_lake: float
    dlt: float | None
    alone_by_cpu: float
    dlt_by_cpu: float | None


@contextmanager
def filled(count: int) -> Iterator[tuple[str, Path]]:
    """A Postgres and two files with the same rows, before and after every one of them changed."""
    from muxly_dagster_tests.peers import postgres as server

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = _rows(count)
        pq.write_table(before, folder / "before.parquet")
        pq.write_table(_changed(before), folder / "after.parquet")
        address = server.shared(folder, buffers="128MB")
        try:
            yield address, folder
        finally:
            server.stop(folder)


def measured(server: str, folder: Path, count: int) -> Round:
    """One round."""
    from muxly_dagster_tests.peers import postgres as peer

    postmaster = (Path((folder / "postgres.data").read_text()) / "data" / "postmaster.pid").read_text().split()[0]
    with peer.fresh_database(server) as url:
        command = [sys.executable, "-m", "benchmarks.upsert", "--url", url, "--folder", str(folder), "--postmaster", postmaster]
        first, alone, alone_by_cpu = json.loads(run(command).output)
    with peer.fresh_database(server) as url:
        from_lake = _from_lake(url, folder)
    dlt = dlt_by_cpu = None
    if RIVAL.exists():
        with peer.fresh_database(server) as url, tempfile.TemporaryDirectory() as state:
            said = run([str(RIVAL), str(HERE / "rivals" / "dlt_merge.py"), url, str(folder), state, postmaster]).output.split()
            dlt, dlt_by_cpu = count / float(said[-2]), count / float(said[-1])
    return Round(alone, first, from_lake, dlt, alone_by_cpu, dlt_by_cpu)


def _from_lake(url: str, folder: Path) -> float:
    """Pull the rows from files, deliver them, pull the changed ones, and deliver those: `muxly run` as people do."""
    with tempfile.TemporaryDirectory() as name:
        project, data = Path(name) / "muxly.yaml", Path(name) / "data"
        data.mkdir()
        pulls = {"events": {"glob": "events.parquet", "key": ["id"]}}
        declared = {
            "sources": {"bench": {"connector": "files", "path": str(data), "pulls": pulls}},
            "routes": {"out": {"from": "bench.events", "to": "warehouse"}},
            "destinations": {"warehouse": {"type": "database", "url": url}},
        }
        project.write_text(json.dumps(declared))
        report = {}
        for which in ("before", "after"):
            (data / "events.parquet").write_bytes((folder / f"{which}.parquet").read_bytes())
            run([*MUXLY, "run", "bench.events", "--json"], MUXLY_PROJECT=str(project))
            report = json.loads(run([*MUXLY, "run", "out.warehouse", "--json"], MUXLY_PROJECT=str(project)).output)[0]
        with psycopg.connect(url) as connection:
            assert connection.execute("select count(*) from bench_events").fetchone() == (report["accepted"],)
        return float(report["accepted"] / report["seconds"])


def _alone(url: str, folder: Path, postmaster: int) -> tuple[float, float, float]:
    """Rows per second of the first load and of the upsert over it, in stretches as the road cuts them; the latter by CPU second, too."""
    from muxly_dagster.destination import Delivery
    from muxly_dagster.destinations.database import Database
    from muxly_dagster.testing import changes

    destination = Database(url=url)  # type: ignore[arg-type]
    speeds, after = [], 0
    for which in ("before", "after"):
        rows = pq.read_table(folder / f"{which}.parquet")
        envelope = changes([{"id": n} for n in range(2)]).slice(0, 1)
        stretches = []
        for start in range(0, len(rows), _STRETCH):
            part = rows.slice(start, _STRETCH)
            seqs = pa.array(range(after + 1, after + len(part) + 1), pa.int64())
            fixed = [pa.repeat(envelope[name][0], len(part)) for name in records.ENVELOPE.names[3:]]
            columns = [seqs, pa.repeat("upsert", len(part)), pc.cast(part["id"], pa.string()), *fixed, *part.columns]
            table = pa.table(columns, schema=pa.schema([*records.ENVELOPE, *part.schema]))
            stretches.append(Delivery("out.warehouse", "bench.events", "0b8e1f9c", ("id",), table, after, after + len(part)))
            after += len(part)
        started, spent = time.monotonic(), time.process_time() + _served(postmaster)
        for stretch in stretches:
            assert destination.deliver(stretch).detail["rows_written"] == len(stretch.rows)
        speeds.append(len(rows) / (time.monotonic() - started))
        by_cpu = len(rows) / (time.process_time() + _served(postmaster) - spent)
    with psycopg.connect(url) as connection:
        found = connection.execute("select count(*), sum(amount) from bench_events").fetchone()
        assert found == (len(rows), pc.sum(rows["amount"]).as_py()), found
    return speeds[0], speeds[1], by_cpu


def _served(postmaster: int) -> float:
    """The CPU seconds of the server's connections that have ended (proc(5): cutime and cstime)."""
    fields = Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def _rows(count: int) -> pa.Table:
    """Ten columns of the kinds that people have."""
    numbers = pa.array(range(1, count + 1), pa.int64())
    texts = pc.cast(numbers, pa.string())
    return pa.table(
        {
            "id": numbers,
            "customer": pc.subtract(pc.multiply(numbers, 7919), pc.multiply(pc.divide(pc.multiply(numbers, 7919), 100_003), 100_003)),
            "state": pa.array(["open", "paid", "shipped"] * (count // 3 + 1))[:count],
            "amount": pc.cast(
                pc.multiply(pc.cast(numbers, pa.decimal128(19, 0)), pa.scalar(decimal.Decimal("0.01"))), pa.decimal128(12, 2)
            ),
            "share": pc.divide(pc.cast(numbers, pa.float64()), 3.0),
            "paid": pa.array([True, False] * (count // 2 + 1))[:count],
            "day": pc.cast(pc.cast(pc.subtract(numbers, pc.multiply(pc.divide(numbers, 9_999), 9_999)), pa.int32()), pa.date32()),
            "updated_at": pc.cast(pc.multiply(numbers, 1_000_003), records.TIMESTAMP),
            "word": pc.binary_join_element_wise("word", texts, "-"),
            "note": pc.if_else(
                pc.starts_with(texts, "1"), None, pc.binary_join_element_wise("a longer text such as people write it", texts, " ")
            ),
        }
    )


def _changed(rows: pa.Table) -> pa.Table:
    amount = pc.cast(pc.add(rows["amount"], pa.scalar(decimal.Decimal(1), pa.decimal128(12, 2))), pa.decimal128(12, 2))
    return rows.set_column(3, "amount", amount).set_column(2, "state", pc.replace_substring(rows["state"], "open", "closed"))


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--postmaster", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.url:
        print(json.dumps(_alone(arguments.url, arguments.folder, arguments.postmaster)))
        return
    with filled(arguments.records) as (server, folder):
        rounds = [measured(server, folder, arguments.records) for _ in range(arguments.rounds)]
    print(f"{arguments.records:,} rows of 10 columns over existing rows, best of {arguments.rounds}")
    for title in ("alone", "first", "from_lake", "dlt", "alone_by_cpu", "dlt_by_cpu"):
        figures = [getattr(round_, title) for round_ in rounds if getattr(round_, title) is not None]
        print(f"{title:14}{max(figures, default=0.0):12,.0f} rows per second   {', '.join(f'{f:,.0f}' for f in figures)}")


if __name__ == "__main__":
    main()
