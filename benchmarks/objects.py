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
from typing import Any, Self

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
    """Counts wall and CPU seconds while it runs."""

    def __init__(self) -> None:
        self._wall = self._cpu = 0.0

    def __enter__(self) -> Self:
        self._wall -= time.monotonic()
        self._cpu -= time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._wall += time.monotonic()
        self._cpu += time.process_time()

    def rates(self, records: int) -> tuple[float, float]:
        """Records per second, and per CPU second."""
        return records / self._wall, records / self._cpu


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


def _fill(lake: str, records: int) -> None:
    with Lake(lake).writer("shop.orders", key=("id",), run_id="bench") as writer:
        writer.add(rows(records))
        writer.finish(whole=True)


def _destination(kind: str, fields: Mapping[str, Any], place: str) -> Destination:
    return File(path=place, **fields) if kind == "file" else S3(prefix=place, **fields)


def _round(kind: str, lake: str, fields: Mapping[str, Any]) -> Round:
    table = Lake(lake).existing("shop.orders")
    alone, on_the_road = _Clock(), _Clock()
    with tempfile.TemporaryDirectory() as folder:
        destination = _destination(kind, fields, f"{folder}/alone")
        destination.check()
        for after in range(0, table.head, _STRETCH):
            upto = min(after + _STRETCH, table.head)
            stretch = delivery(table.changes(after, upto), after=after, upto=upto)
            with alone:
                destination.deliver(stretch)
        state = State.open(f"sqlite:///{folder}/state.db", Path(folder))
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
        with on_the_road:
            outcome = road.deliver(Lake(lake), state, target, run_id="bench")
        assert outcome.accepted == table.head
        state.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Round(*alone.rates(table.head), *on_the_road.rates(table.head), peak)


def compared(records: int, rounds: int) -> Iterator[tuple[str, Round]]:
    """What is measured, and the best of the rounds."""
    from muxly_dagster_tests.peers import aws

    with aws.running() as server, tempfile.TemporaryDirectory() as lake:
        command = [sys.executable, "-m", "benchmarks.objects", "--lake", lake]
        run([*command, "--records", str(records)])
        for title, kind, fields in (
            ("Parquet files", "file", {"format": "parquet"}),
            ("Parquet files in 10 folders by value", "file", {"format": "parquet", "partition": ["id % 10"]}),
            ("Arrow files", "file", {"format": "arrow"}),
            ("CSV files", "file", {"format": "csv"}),
            ("NDJSON files", "file", {"format": "ndjson", "records": "data"}),
            ("Parquet objects in S3", "s3", {**server.fields, "format": "parquet"}),
        ):
            outputs = [run([*command, "--kind", kind, "--fields", json.dumps(fields)]).output for _ in range(rounds)]
            found = [Round(**json.loads(output)) for output in outputs]
            best = {each.name: max(getattr(round_, each.name) for round_ in found) for each in fields_of(Round)}
            yield title, Round(**best | {"peak": min(round_.peak for round_ in found)})


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    for hidden in ("--lake", "--kind", "--fields"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        print(json.dumps(asdict(_round(arguments.kind, arguments.lake, json.loads(arguments.fields)))))
        return
    if arguments.lake:
        _fill(arguments.lake, arguments.records)
        return
    for title, best in compared(arguments.records, arguments.rounds):
        for what, wall, cpu in (("alone", best.alone, best.alone_cpu), ("on the road", best.road, best.road_cpu)):
            print(f"{title:40}{what:12}{wall:12,.0f} rows/s{cpu:12,.0f} rows per CPU second{best.peak:8,.0f} MiB")


if __name__ == "__main__":
    main()
