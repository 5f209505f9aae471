"""The lake in a bucket: the same promises over S3's protocol (a moto server on loopback)."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pyarrow as pa
import pytest

from muxly_dagster.lake import Lake


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "lab",
        "AWS_SECRET_ACCESS_KEY": "lab",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    with httpx.Client(base_url=address, transport=httpx.HTTPTransport(retries=8)) as client:
        client.put("/lake").raise_for_status()
    yield "s3://lake/muxly"
    server.terminate()
    server.wait()


def test_a_table_in_a_bucket_keeps_changes_and_cursor(bucket: str) -> None:
    lake = Lake(bucket)
    assert lake.table("crm.things") is None
    for value in (1, 2):
        with lake.writer("crm.things", key=("id",), run_id="run") as writer:
            writer.add(pa.table({"id": ["1", "2"], "v": [value, 9]}))
            writer.commit(value)
            writer.finish(whole=True)
    table = lake.existing("crm.things")
    assert (table.head, table.cursor_version) == (3, 2)
    assert sorted(table.current().to_pylist(), key=str) == [{"id": "1", "v": 2}, {"id": "2", "v": 9}]
    assert lake.maintain(["crm.things"], keep_hours=0)["crm.things"]["files_after"] == 1
    assert lake.existing("crm.things").changes(0, 9)["_muxly_seq"].to_pylist() == [1, 2, 3]
