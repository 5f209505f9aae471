"""Objects arrive in a bucket, are never written over, and a delivery is whole to everyone who goes by manifests."""

import hashlib
import io
import json
import os
import random
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from pydantic import ValidationError

from muxly_dagster.destinations.s3 import S3
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError
from muxly_dagster.testing import EVERY_TYPE, DestinationContract, changes, delivery
from muxly_dagster_tests.destinations.recorded import Row, data_of, rows_of, seqs_by_manifests
from muxly_dagster_tests.http.server import Server, answer
from muxly_dagster_tests.peers import aws
from muxly_dagster_tests.peers.faults import Fault, Line, blackhole, cut, cut_sent, delay, garbage, refuse, reset, reset_sent, slow

LOSSY = tuple(name for name in EVERY_TYPE if name not in ("a_decimal", "some_bytes", "a_date", "a_time"))


@pytest.fixture(scope="module")
def server() -> Iterator[aws.Aws]:
    with aws.running() as found:
        yield found


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A place of its own for each test."""
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]


def nowhere() -> str:
    """An address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def noise(count: int, size: int) -> list[Row]:
    """Records that cannot be compressed."""
    made = random.Random(0)
    return [{"id": n, "noise": made.randbytes(size)} for n in range(count)]


class BucketContract(DestinationContract):
    keeps = "changes"

    @pytest.fixture(autouse=True)
    def _at(self, server: aws.Aws, prefix: str) -> None:
        self.server, self.prefix = server, prefix

    def stored(self, destination: S3) -> list[Row]:
        objects = {key: self.server.read(key) for key in self.server.keys(self.prefix)}
        assert seqs_by_manifests(objects)
        return [data_of(row) for key in objects if "_manifests/" not in key for row in rows_of(key, objects[key])]

    def away(self) -> S3:
        return S3(**{**self.server.fields, "endpoint_url": nowhere()})

    def wrong(self) -> S3:
        return S3(**{**self.server.fields, "prefix": self.prefix, "secret_access_key": "a-secret-nobody-knows"})


class TestParquet(BucketContract):
    @pytest.fixture
    def destination(self, server: aws.Aws, prefix: str) -> S3:
        return S3(**server.fields, prefix=prefix, format="parquet")


class TestNdjson(BucketContract):
    columns = LOSSY

    @pytest.fixture
    def destination(self, server: aws.Aws, prefix: str) -> S3:
        return S3(**server.fields, prefix=prefix, partition="id % 2", roll={"rows": 2}, compression="gzip")


# ---- what is stored --------------------------------------------------------------------------------------------------


def test_keys_tell_the_delivery_and_the_changes_and_the_manifest_tells_the_rest(server: aws.Aws, prefix: str) -> None:
    destination = S3(**{**server.fields, "bucket": f"s3://archive/{prefix}/a"}, prefix="/b/", partition={"n": "id"}, roll={"rows": 1})
    receipt = destination.deliver(delivery([{"id": 1}, {"id": 1}, {"id": 2}], after=41, upto=99))
    series = "big_deals.warehouse-0b8e1f9c"
    manifest = f"{prefix}/a/b/_manifests/crm_deals/{series}/000000000099-000000000041.json"
    objects = [
        f"{prefix}/a/b/crm_deals/n=1/{series}-000000000041-000000000042.ndjson",
        f"{prefix}/a/b/crm_deals/n=1/{series}-000000000042-000000000099.ndjson",
        f"{prefix}/a/b/crm_deals/n=2/{series}-000000000041-000000000099.ndjson",
    ]
    assert server.keys(prefix) == [manifest, *objects]
    assert receipt.detail["manifest"] == f"s3://archive/{manifest}"
    said = json.loads(server.read(manifest))
    assert {name: said[name] for name in ("delivery", "table", "table_id", "after", "upto", "rows", "format")} == {
        "delivery": "big_deals.warehouse",
        "table": "crm.deals",
        "table_id": "0b8e1f9c",
        "after": 41,
        "upto": 99,
        "rows": 3,
        "format": "ndjson",
    }
    assert [each["key"] for each in said["objects"]] == objects
    for each in said["objects"]:
        content = server.read(each["key"])
        assert (each["bytes"], each["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        head = server.client.head_object(Bucket=aws.BUCKET, Key=each["key"])
        assert (head["Metadata"]["muxly-sha256"], head["ContentType"]) == (each["sha256"], "application/x-ndjson")
    assert destination.public_name("crm.deals") == f"s3://archive/{prefix}/a/b/crm_deals/n=*/*.ndjson"


def test_a_repeat_that_is_the_same_writes_nothing(server: aws.Aws, prefix: str) -> None:
    destination = S3(**server.fields, prefix=prefix, format="parquet")
    stretch = delivery([{"id": 1}, {"id": 2}])
    destination.deliver(stretch)
    before = {key: server.client.head_object(Bucket=aws.BUCKET, Key=key)["LastModified"] for key in server.keys(prefix)}
    receipt = S3(**server.fields, prefix=prefix, format="parquet").deliver(stretch)
    assert receipt.detail["repeated"] is True
    assert {key: server.client.head_object(Bucket=aws.BUCKET, Key=key)["LastModified"] for key in server.keys(prefix)} == before


def test_a_repeat_replaces_its_attempts_and_nothing_else(server: aws.Aws, prefix: str) -> None:
    def deliver(rows: list[int], after: int, size: int = 100, **more: Any) -> None:
        destination = S3(**server.fields, prefix=prefix, roll={"rows": size})
        destination.deliver(delivery([{"id": n} for n in rows], after=after, **more))

    def ids() -> list[int]:
        objects = {key: server.read(key) for key in server.keys(prefix)}
        assert len(seqs_by_manifests(objects)) == sum(len(rows_of(k, v)) for k, v in objects.items() if "_manifests" not in k)
        return sorted(data_of(row)["id"] for k, v in objects.items() if "_manifests" not in k for row in rows_of(k, v))

    deliver([1, 2], 0)
    deliver([77], 0, delivery_id="small_deals.warehouse")
    deliver([88], 0, table_id="another")
    deliver([3, 4, 5], 2)
    deliver([3, 4, 5, 6], 2, size=2)
    assert ids() == [1, 2, 3, 4, 5, 6, 77, 88]
    deliver([3], 2)
    assert ids() == [1, 2, 3, 77, 88]
    deliver([1, 2, 3, 4], 0, size=3)
    assert ids() == [1, 2, 3, 4, 77, 88]


def test_data_files_leave_deletes_out(server: aws.Aws, prefix: str) -> None:
    receipt = S3(**server.fields, prefix=prefix, records="data").deliver(delivery([{"id": 1}, {"id": 2}], ops=["upsert", "delete"]))
    assert (receipt.accepted, receipt.detail["deletes_left_out"]) == (2, 1)
    (key,) = server.keys(f"{prefix}/crm_deals")
    assert rows_of(key, server.read(key)) == [{"id": 1}]


def test_objects_are_encrypted_as_asked(server: aws.Aws, prefix: str) -> None:
    S3(**server.fields, prefix=f"{prefix}/a", encryption="AES256").deliver(delivery([{"id": 1}]))
    S3(**server.fields, prefix=f"{prefix}/k", encryption="aws:kms", kms_key_id="lab-key").deliver(delivery([{"id": 1}]))
    for key in server.keys(f"{prefix}/a"):
        assert server.client.head_object(Bucket=aws.BUCKET, Key=key)["ServerSideEncryption"] == "AES256"
    for key in server.keys(f"{prefix}/k"):
        head = server.client.head_object(Bucket=aws.BUCKET, Key=key)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "lab-key")


def test_a_large_object_goes_in_parts_and_arrives_whole(server: aws.Aws, prefix: str) -> None:
    rows = noise(400, 100_000)
    S3(**server.fields, prefix=prefix, format="parquet").deliver(delivery(rows))
    (key,) = server.keys(f"{prefix}/crm_deals")
    assert server.client.head_object(Bucket=aws.BUCKET, Key=key)["ETag"].strip('"').endswith("-3")
    assert [data_of(row) for row in rows_of(key, server.read(key))] == rows
    # Whole objects that nobody knows of are as good as ours when they are the same, in parts, too.
    server.client.delete_object(Bucket=aws.BUCKET, Key=server.keys(f"{prefix}/_manifests")[0])
    S3(**server.fields, prefix=prefix, format="parquet").deliver(delivery(rows))
    assert server.unfinished() == []


# ---- two writers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 400], ids=["small", "in parts"])
def test_what_another_writer_stored_is_not_written_over(server: aws.Aws, prefix: str, rows: int) -> None:
    destination = S3(**server.fields, prefix=prefix, format="parquet")
    key = f"{prefix}/crm_deals/big_deals.warehouse-0b8e1f9c-000000000000-{rows:012d}.parquet"
    server.client.put_object(Bucket=aws.BUCKET, Key=key, Body=b"somebody else's")
    stretch = delivery(noise(rows, 100_000))
    with pytest.raises(RetryLater, match="another process stored other changes") as caught:
        destination.deliver(stretch)
    assert "two installations" in caught.value.do
    assert server.read(key) == b"somebody else's"
    assert server.unfinished() == []
    assert not [name for name in server.keys(prefix) if name.endswith(".json")]
    server.client.delete_object(Bucket=aws.BUCKET, Key=key)
    assert destination.deliver(stretch).accepted == rows
    assert [name for name in server.keys(prefix) if "/~" in name] == []


def test_a_note_that_outlived_its_delivery_takes_nothing_with_it(server: aws.Aws, prefix: str) -> None:
    """A process was killed right after the manifest, or before it while a later one went on from further on."""
    destination = S3(**server.fields, prefix=prefix)
    destination.deliver(delivery([{"id": 1}]))
    place = f"{prefix}/_manifests/crm_deals/big_deals.warehouse-0b8e1f9c"
    (key,) = server.keys(f"{prefix}/crm_deals")
    orphan = f"{prefix}/crm_deals/big_deals.warehouse-0b8e1f9c-000000000001-000000000009.ndjson"
    server.client.put_object(Bucket=aws.BUCKET, Key=orphan, Body=b"{}")
    for name, keys in (("~000000000001-000000000000.aa", [key]), ("~000000000009-000000000001.bb", [orphan])):
        body = json.dumps({"muxly": 1, "writes": keys, "removes": []}).encode()
        server.client.put_object(Bucket=aws.BUCKET, Key=f"{place}/{name}", Body=body)
    destination.deliver(delivery([{"id": 10}], after=9))
    assert [name.rpartition("-")[2] for name in server.keys(f"{prefix}/crm_deals")] == ["000000000001.ndjson", "000000000010.ndjson"]
    assert [name for name in server.keys(prefix) if "/~" in name] == []


def test_parts_that_a_killed_process_left_are_given_up(server: aws.Aws, prefix: str) -> None:
    key = f"{prefix}/crm_deals/big_deals.warehouse-0b8e1f9c-000000000000-000000000002.ndjson"
    other = f"{prefix}/crm_deals/people.ndjson"
    for name in (key, other):
        upload = server.client.create_multipart_upload(Bucket=aws.BUCKET, Key=name)["UploadId"]
        server.client.upload_part(Bucket=aws.BUCKET, Key=name, UploadId=upload, PartNumber=1, Body=b"half")
    note = f"{prefix}/_manifests/crm_deals/big_deals.warehouse-0b8e1f9c/~000000000002-000000000000.aa"
    server.client.put_object(Bucket=aws.BUCKET, Key=note, Body=json.dumps({"muxly": 1, "writes": [key], "removes": []}).encode())
    S3(**server.fields, prefix=prefix).deliver(delivery([{"id": 1}]))
    assert server.unfinished() == [other]
    server.client.abort_multipart_upload(Bucket=aws.BUCKET, Key=other, UploadId=upload)


def test_a_manifest_that_is_none_stops_the_delivery(server: aws.Aws, prefix: str) -> None:
    place = f"{prefix}/_manifests/crm_deals/big_deals.warehouse-0b8e1f9c/000000000002-000000000000.json"
    server.client.put_object(Bucket=aws.BUCKET, Key=place, Body=b"<html>")
    with pytest.raises(ConfigurationError, match="should be a manifest") as caught:
        S3(**server.fields, prefix=prefix).deliver(delivery([{"id": 1}]))
    assert place in caught.value.where


# ---- refusals and bad lines ------------------------------------------------------------------------------------------


def test_refusals_say_what_a_person_must_do(server: aws.Aws, prefix: str) -> None:
    cases: list[tuple[dict[str, Any], type[MuxlyError], str, str]] = [
        ({"secret_access_key": "not-this-one"}, SignInError, "SignatureDoesNotMatch", "correct the credentials"),
        ({"access_key_id": "AKIANOTTHISONE"}, SignInError, "InvalidAccessKeyId", "correct the credentials"),
        (server.user(f"reader-{prefix}", "s3:ListBucket"), SignInError, "AccessDenied", "s3:ListBucket, GetObject"),
        ({"bucket": "no-such-bucket"}, ConfigurationError, "NoSuchBucket", "correct `bucket`"),
        ({"bucket": "No Bucket"}, ConfigurationError, "bucket", "correct `bucket`"),
        ({"profile": "nobody"}, ConfigurationError, "nobody", "`profile`"),
    ]
    for fields, kind, what, do in cases:
        destination = S3(**{**server.fields, "prefix": prefix, **fields})
        with pytest.raises(kind, match=what) as caught:
            destination.deliver(delivery([{"id": 1}]))
        assert do in str(caught.value), what
        assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert server.keys(prefix) == []


def test_checking_needs_no_permission_to_write(server: aws.Aws, prefix: str) -> None:
    reader = server.user(f"checker-{prefix}", "s3:ListBucket")
    assert S3(**{**server.fields, **reader}).check().status == "ok"
    check = S3(**{**server.fields, "bucket": "no-such-bucket"}).check()
    assert (check.status, "NoSuchBucket" in check.what) == ("failed", True)


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (503, "ServiceUnavailable"), (500, "InternalError"), (429, "TooMany")])
def test_a_server_that_is_busy_is_asked_another_time(server: aws.Aws, status: int, code: str) -> None:
    xml = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>Reduce your request rate.</Message></Error>"
    with Server(lambda _: answer(status, xml, Content_Type="application/xml")) as busy:
        destination = S3(**{**server.fields, "endpoint_url": busy.url})
        with pytest.raises(RetryLater, match=code):
            destination.deliver(delivery([{"id": 1}]))
        assert destination.check().status == "failed"
        assert len(busy.asked) == 6


@pytest.mark.parametrize(
    "fault", [refuse, garbage, cut(40), reset(0), cut_sent(100), reset_sent(100)], ids=lambda fault: f"{fault.kind} {fault.amount:.0f}"
)
def test_a_bad_line_leaves_nothing_and_the_next_run_goes_on(server: aws.Aws, prefix: str, fault: Fault) -> None:
    with Line(server.port, fault) as line:
        destination = S3(**{**server.fields, "endpoint_url": line.url}, prefix=prefix)
        with pytest.raises(RetryLater) as caught:
            destination.deliver(delivery([{"id": 1}]))
        assert caught.value.do
        line.then(slow(100_000))
        assert destination.deliver(delivery([{"id": 1}, {"id": 2}])).accepted == 2
    assert seqs_by_manifests({key: server.read(key) for key in server.keys(prefix)}) == [1, 2]
    assert len(server.keys(prefix)) == 2


def test_a_line_that_breaks_in_the_middle_of_a_large_object_leaves_no_parts(server: aws.Aws, prefix: str) -> None:
    rows = noise(400, 100_000)
    with Line(server.port, cut_sent(9 << 20)) as line:
        destination = S3(**{**server.fields, "endpoint_url": line.url}, prefix=prefix, format="parquet")
        with pytest.raises(RetryLater):
            destination.deliver(delivery(rows))
        assert server.unfinished() == []
        assert not [key for key in server.keys(prefix) if key.endswith((".json", ".parquet"))]
        line.then(delay(0.001))
        assert destination.deliver(delivery(rows)).accepted == 400
    assert seqs_by_manifests({key: server.read(key) for key in server.keys(prefix)}) == list(range(1, 401))


def test_a_server_that_never_answers_is_not_waited_for_for_ever(server: aws.Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Config.OPTION_DEFAULTS, "read_timeout", 0.2)
    with Line(server.port, blackhole) as line, pytest.raises(RetryLater, match="[Tt]imeout"):
        S3(**{**server.fields, "endpoint_url": line.url}).deliver(delivery([{"id": 1}]))


def test_a_full_disk_for_temporary_files_asks_for_room(server: aws.Aws, prefix: str) -> None:
    rows = noise(400, 100_000)
    destination = S3(**server.fields, prefix=prefix)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(RetryLater, match="cannot be prepared: File too large"):
            destination.deliver(delivery(rows))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert server.keys(prefix) == []
    assert destination.deliver(delivery(rows)).accepted == 400


# ---- whose credentials -----------------------------------------------------------------------------------------------


def test_the_machines_own_credentials_are_used_where_none_are_given(server: aws.Aws, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_access_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", aws.REGION)
    before = dict(os.environ)
    assert S3(bucket=aws.BUCKET, endpoint_url=server.url, prefix=prefix).deliver(delivery([{"id": 1}])).accepted == 1
    assert dict(os.environ) == before


def test_a_machine_without_credentials_says_so(server: aws.Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(SignInError, match="no credentials") as caught:
        S3(bucket=aws.BUCKET, endpoint_url=server.url, region=aws.REGION).deliver(delivery([{"id": 1}]))
    assert "`access_key_id`" in caught.value.do


def test_credentials_of_one_destination_are_none_of_anothers(server: aws.Aws, prefix: str) -> None:
    right = S3(**server.fields, prefix=prefix)
    wrong = S3(**{**server.fields, "access_key_id": "AKIANOTTHISONE"}, prefix=prefix)
    assert [d.check().status for d in (right, wrong, right)] == ["ok", "failed", "ok"]


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"bucket": ""}, "the bucket is a name"),
        ({"bucket": "https://example.com/x"}, "the bucket is a name"),
        ({"bucket": "a", "access_key_id": "x"}, "go together"),
        ({"bucket": "a", "kms_key_id": "x"}, "needs `encryption: aws:kms`"),
        ({"bucket": "a", "auth": {"kind": "service_account"}}, "`auth` is for gs:// buckets"),
        ({"bucket": "gs://a", "region": "eu"}, "`region` is for S3"),
        ({"bucket": "gs://a", "encryption": "AES256"}, "`encryption` is for S3"),
        ({"bucket": "a", "format": "csv", "compression": "lz4"}, "csv is not written with `compression: lz4`"),
        ({"bucket": "a", "roll": {"age": "1d"}}, "roll.age"),
    ],
)
def test_settings_that_make_no_sense_are_told(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        S3(**fields)


def test_many_rows_come_to_a_few_large_files(server: aws.Aws, prefix: str) -> None:
    rows = changes([{"id": n} for n in range(3_000)])
    S3(**server.fields, prefix=prefix, format="parquet", roll={"rows": 1_000}).deliver(delivery(rows))
    import pyarrow.parquet

    counts = [pyarrow.parquet.read_metadata(io.BytesIO(server.read(key))).num_rows for key in server.keys(f"{prefix}/crm_deals")]
    assert counts == [1_000, 1_000, 1_000]
