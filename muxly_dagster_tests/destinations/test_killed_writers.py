"""The promise of `file` and `s3`: killed at any moment, any number of times, readers of complete files see every change exactly once."""

import json
import multiprocessing
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster_tests.destinations import deadly
from muxly_dagster_tests.destinations.recorded import files, seqs, seqs_by_manifests, shown
from muxly_dagster_tests.peers import aws

KILLED = -9
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "cut, in folders": {"format": "parquet", "partition": ["city"], "roll": {"rows": 2}},
}
MERGING: Mapping[str, Mapping[str, Any]] = {
    "merged": {"roll": {"age": "1000w"}},
    "merged, in folders": {"format": "csv", "compression": "gzip", "partition": ["city"], "roll": {"age": "1000w", "rows": 9}},
}

Run = Callable[[Mapping[str, Any], int, int | None], bool]


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    yield multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def server() -> Iterator[aws.Aws]:
    with aws.running() as found:
        yield found


def ended(process: Any) -> bool:
    """Whether it came to its end by itself."""
    process.join()
    assert process.exitcode in (0, KILLED)
    return bool(process.exitcode == 0)


@pytest.mark.parametrize("fields", [*SETTINGS.values(), *MERGING.values()], ids=[*SETTINGS, *MERGING])
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_file_writer(
    processes: multiprocessing.context.ForkServerContext, tmp_path: Path, fields: Mapping[str, Any], seed: int
) -> None:
    moments = random.Random(seed)
    out = tmp_path / "out"
    killed = 0
    while True:
        arguments = (
            tmp_path,
            "file",
            {"path": str(out), **fields},
            moments.randrange(1_000),
            moments.randrange(1, 25) if killed < 8 else None,
        )
        process = processes.Process(target=deadly.run, args=arguments)
        process.start()
        if ended(process) and deadly.offset(tmp_path) == deadly.RECORDS:
            break
        killed += 1
        found = seqs(out)
        assert len(found) == len(set(found)), "a change was seen twice"
    assert killed >= 2
    assert seqs(out) == list(range(1, deadly.RECORDS + 1))
    assert [name for name in files(out) if name not in shown(out) and not name.endswith(".parts")] == []


@pytest.mark.parametrize("fields", list(SETTINGS.values()), ids=list(SETTINGS))
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_s3_writer(
    processes: multiprocessing.context.ForkServerContext,
    server: aws.Aws,
    tmp_path: Path,
    fields: Mapping[str, Any],
    seed: int,
    request: pytest.FixtureRequest,
) -> None:
    moments = random.Random(seed)
    prefix = f"{seed}-{len(fields)}"
    settings = {**server.fields, "prefix": prefix, **fields}
    killed = 0
    while True:
        arguments = (tmp_path, "s3", settings, moments.randrange(1_000), moments.randrange(1, 20) if killed < 4 else None)
        process = processes.Process(target=deadly.run, args=arguments)
        process.start()
        if ended(process) and deadly.offset(tmp_path) == deadly.RECORDS:
            break
        killed += 1
        found = seqs_by_manifests({key: server.read(key) for key in server.keys(prefix)})
        assert len(found) == len(set(found)), "a change was seen twice"
    objects = {key: server.read(key) for key in server.keys(prefix)}
    assert seqs_by_manifests(objects) == list(range(1, deadly.RECORDS + 1))
    # Nothing is there that no manifest names, so readers that only list see the same.
    named = {each for key, content in objects.items() if "_manifests/" in key for each in _named(content)}
    assert named == {key for key in objects if "_manifests/" not in key}
    assert not [key for key in objects if "/~" in key]
    assert server.unfinished() == []


def _named(manifest: bytes) -> list[str]:

    return [each["key"] for each in json.loads(manifest)["objects"]]
