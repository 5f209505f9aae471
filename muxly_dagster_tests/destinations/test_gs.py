"""`gs://` buckets, through Google's own client: the same promises as in S3."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.destinations.s3 import S3
from muxly_dagster.errors import ConfigurationError, RetryLater, SignInError
from muxly_dagster.testing import EVERY_TYPE, DestinationContract, delivery
from muxly_dagster_tests.destinations.recorded import Row, data_of, rows_of, seqs_by_manifests
from muxly_dagster_tests.destinations.test_s3 import noise, nowhere
from muxly_dagster_tests.peers.faults import Line, cut, garbage, ok, reset
from muxly_dagster_tests.peers.gcs import Gcs


@pytest.fixture
def google() -> Iterator[Gcs]:
    with Gcs() as found:
        yield found


def bucket(google: Gcs, **fields: Any) -> S3:
    """A destination from fields as they stand in muxly.yaml."""
    auth = {"kind": "service_account", "key": google.key()}
    return S3(**{"bucket": "gs://archive/muxly", "endpoint_url": google.url, "auth": auth, **fields})


def contents(google: Gcs) -> dict[str, bytes]:
    """Every object by its name."""
    return {name: blob.content for name, blob in google.blobs.items()}


class TestGoogle(DestinationContract):
    keeps = "changes"
    columns = tuple(name for name in EVERY_TYPE if name not in ("a_decimal", "some_bytes", "a_date", "a_time"))

    @pytest.fixture
    def destination(self, google: Gcs) -> S3:
        self.google = google
        self.secrets = [json.loads(google.key())["private_key"].splitlines()[5]]
        return bucket(google)

    def stored(self, destination: S3) -> list[Row]:
        found = contents(self.google)
        assert seqs_by_manifests(found)
        return [data_of(row) for name in found if "_manifests/" not in name for row in rows_of(name, found[name])]

    @pytest.fixture(autouse=True)
    def _key(self, google: Gcs) -> None:
        self.google = google

    def away(self) -> S3:
        key = json.loads(self.google.key()) | {"token_uri": f"{nowhere()}/token"}
        return bucket(self.google, endpoint_url=nowhere(), auth={"kind": "service_account", "key": json.dumps(key)})

    def wrong(self) -> S3:
        return bucket(self.google, auth={"kind": "service_account", "key": self.google.key("somebody")})


def test_a_large_object_goes_in_parts_and_arrives_whole(google: Gcs) -> None:
    rows = noise(400, 100_000)
    bucket(google, format="parquet", kms_key_id="projects/lab/locations/eu/keyRings/r/cryptoKeys/k").deliver(delivery(rows))
    (name,) = [name for name in google.blobs if name.endswith(".parquet")]
    assert [data_of(row) for row in rows_of(name, google.blobs[name].content)] == rows
    assert google.blobs[name].kms_key == "projects/lab/locations/eu/keyRings/r/cryptoKeys/k"
    assert google.blobs[name].content_type == "application/vnd.apache.parquet"


def test_a_repeat_replaces_its_attempts_and_nothing_else(google: Gcs) -> None:
    destination = bucket(google, roll={"rows": 2}, partition="id % 2")
    destination.deliver(delivery([{"id": 1}, {"id": 2}]))
    destination.deliver(delivery([{"id": 77}], delivery_id="small_deals.warehouse"))
    for more in (5, 3, 9):
        destination.deliver(delivery([{"id": n} for n in range(more)], after=2))
        assert seqs_by_manifests(contents(google)) == sorted([1, *range(1, 3 + more)])
        assert {name for name in google.blobs if "_manifests/" not in name} == {
            each["key"] for name, content in contents(google).items() if "_manifests/" in name for each in json.loads(content)["objects"]
        }


def test_what_another_writer_stored_is_not_written_over(google: Gcs) -> None:
    destination = bucket(google)
    destination.deliver(delivery([{"id": 1}]))
    (name,) = [name for name in google.blobs if name.endswith(".ndjson")]
    google.blobs = {name: google.blobs[name]}
    with pytest.raises(RetryLater, match="another process stored other changes"):
        destination.deliver(delivery([{"id": 2}]))
    assert b'"id":1' in google.blobs[name].content
    assert destination.deliver(delivery([{"id": 1}])).accepted == 1


def test_refusals_say_what_a_person_must_do(google: Gcs) -> None:
    somebody = bucket(google, auth={"kind": "service_account", "key": google.key("somebody")})
    with pytest.raises(SignInError, match="Invalid JWT Signature"):
        somebody.deliver(delivery([{"id": 1}]))
    with pytest.raises(ConfigurationError, match="bucket does not exist"):
        bucket(google, bucket="gs://nowhere").deliver(delivery([{"id": 1}]))
    google.denied = True
    with pytest.raises(SignInError, match="storage.objects.list") as caught:
        bucket(google).deliver(delivery([{"id": 1}]))
    assert "Storage Object User" in caught.value.do
    assert google.blobs == {}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_for_a_moment_is_asked_again(google: Gcs, status: int) -> None:
    google.failing = [status, status]
    assert bucket(google).deliver(delivery([{"id": 1}])).accepted == 1
    assert seqs_by_manifests(contents(google)) == [1]


@pytest.mark.parametrize("fault", [garbage, cut(30), cut(45), cut(60), reset(0)], ids=lambda fault: f"{fault.kind} {fault.amount}")
def test_a_line_that_breaks_once_loses_and_doubles_nothing(google: Gcs, fault: Any) -> None:
    with Line(google.port, ok, fault, fault, ok) as line:
        destination = bucket(google, endpoint_url=line.url)
        for rows in (1, 2):
            try:
                destination.deliver(delivery([{"id": n} for n in range(rows)]))
            except RetryLater as error:
                assert error.do
        destination.deliver(delivery([{"id": 0}, {"id": 1}]))
    assert seqs_by_manifests(contents(google)) == [1, 2]


def test_the_machines_own_identity_is_used_where_none_is_given(google: Gcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key.json"
    file.write_text(google.key())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    assert S3(bucket="gs://archive", endpoint_url=google.url).check().status == "ok"
