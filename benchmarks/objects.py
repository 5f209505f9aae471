"""Measures deliveries of a million rows of ten columns to files and to a bucket, alone and on the road from a lake.

Run: `python -m benchmarks.objects [--records N] [--rounds N]`. The bucket is a moto server on loopback, in a process of its own. Of several
rounds the best counts: the machine is shared.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.measure import run
from muxly_dagster import delivery as road
from muxly_dagster.assembly import Target
from muxly_dagster.destination import Destination
from muxly_dagster.destinations.file import File
from muxly_dagster.destinations.s3 import S3
from muxly_dagster.lake import Lake
from muxly_dagster.project.models import RouteSpec
from muxly_dagster.routing import Router, Rule
from muxly_dagster.state import State
from muxly_dagster.testing import delivery

_STRETCH = 200_000


@dataclass(frozen=True)
class Round:
    """Rows per second, and per CPU second of this process, to the destination alone and on the road from a lake; peak memory in MiB."""

    alone: float
    alone_cpu: float
    road: float
    road_cpu: float
    peak: float


class _Clock:
    """Rows per second and per CPU second, from its making to its stop."""

    def __init__(self, records: int) -> None:
        self._records, self._wall, self._cpu = records, time.monotonic(), time.process_time()
        self.rate = self.cpu_rate = 0.0

    def stop(self) -> None:
        self.rate = self._records / (time.monotonic() - self._wall)
        self.cpu_rate = self._records / (time.process_time() - self._cpu)


def rows(records: int) -> pa.Table:
    """Ten columns such as a shop's orders have."""
    numbers = np.arange(records)
    words = pa.array(["open", "paid", "shipped"])
    return pa.table(
        {
            "id": pa.array(numbers),
            "customer": pa.array(numbers * 7919 % 100_003),
            "state": words.take(pa.array(numbers % 3)),
            "amount": pa.array(numbers % 1_000_000 / 100.0),
            "share": pa.array(numbers % 977 / 3.0),
            "paid": pa.array(numbers % 2 == 0),
            "day": pa.array((numbers % 1000 + 19_700).astype("int32")).cast(pa.date32()),
            "updated_at": pa.array(numbers * 1_000_003 + 1_700_000_000_000_000).cast(pa.timestamp("us", "UTC")),
            "word": pa.array([f"{number * 2654435761 % 2**64:016x}" for number in range(records)]),
            "note": pa.array([None if number % 5 == 0 else f"a longer text such as people write it {number}" for number in range(records)]),
        }
    )


def measured(kind: str, records: int, fields: Mapping[str, Any]) -> Round:
    """One round in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.objects", "--records", str(records), "--kind", kind, "--fields", json.dumps(fields)]
    return Round(**json.loads(run(command).output))


def _destination(kind: str, fields: Mapping[str, Any], place: str) -> Destination:
    return File(path=place, **fields) if kind == "file" else S3(prefix=place, **fields)


def _round(kind: str, records: int, fields: Mapping[str, Any]) -> Round:
    with tempfile.TemporaryDirectory() as folder:
        lake, state = Lake(f"{folder}/lake"), State.open(f"sqlite:///{folder}/state.db", Path(folder))
        with lake.writer("shop.orders", key=("id",), run_id="bench") as writer:
            writer.add(rows(records))
            writer.finish(whole=True)
        table = lake.existing("shop.orders")
        stretches = [(after, min(after + _STRETCH, records)) for after in range(0, records, _STRETCH)]
        changes = [table.changes(after, upto) for after, upto in stretches]
        destination = _destination(kind, fields, f"{folder}/alone")
        destination.check()
        alone = _Clock(records)
        for some, (after, upto) in zip(changes, stretches, strict=True):
            destination.deliver(delivery(some, after=after, upto=upto))
        alone.stop()
        changes.clear()
        target = Target(
            name="orders.archive",
            route="orders",
            spec=RouteSpec.model_validate({"from": "shop.orders", "to": "archive"}),
            table="shop.orders",
            key=("id",),
            connector_id="bench",
            destination_name="archive",
            destination=_destination(kind, fields, f"{folder}/road"),
            router=Router([Rule(None, ("archive",))]),
        )
        on_the_road = _Clock(records)
        outcome = road.deliver(lake, state, target, run_id="bench")
        assert outcome.accepted == records
        on_the_road.stop()
        state.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Round(alone.rate, alone.cpu_rate, on_the_road.rate, on_the_road.cpu_rate, peak)


def compared(records: int, rounds: int) -> Iterator[tuple[str, Round]]:
    """What is measured, and the best of the rounds."""
    from muxly_dagster_tests.peers import aws

    with aws.running() as server:
        for title, kind, fields in (
            ("Parquet files", "file", {"format": "parquet"}),
            ("Parquet files in 10 folders by value", "file", {"format": "parquet", "partition": ["id % 10"]}),
            ("Arrow files", "file", {"format": "arrow"}),
            ("CSV files", "file", {"format": "csv"}),
            ("NDJSON files", "file", {"format": "ndjson", "records": "data"}),
            ("Parquet objects in S3", "s3", {**server.fields, "format": "parquet"}),
        ):
            found = [measured(kind, records, fields) for _ in range(rounds)]
            best = {each.name: max(getattr(round_, each.name) for round_ in found) for each in fields_of(Round)}
            yield title, Round(**best | {"peak": min(round_.peak for round_ in found)})


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--fields", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        found = _round(arguments.kind, arguments.records, json.loads(arguments.fields))
        print(json.dumps(asdict(found)))
        return
    for title, best in compared(arguments.records, arguments.rounds):
        for what, wall, cpu in (("alone", best.alone, best.alone_cpu), ("on the road", best.road, best.road_cpu)):
            print(f"{title:40}{what:12}{wall:12,.0f} rows/s{cpu:12,.0f} rows per CPU second{best.peak:8,.0f} MiB")


if __name__ == "__main__":
    main()
