"""Files of records: downloaded once a version, never too large, and a record without its file says why."""

import hashlib
from typing import Any

import pyarrow as pa
import pytest
from pydantic import SecretStr

from muxly_dagster.auth import Bearer
from muxly_dagster.errors import ConfigurationError, SignInError, SourceError
from muxly_dagster.http import FileTooLarge, Http, Request, Response, Verdict
from muxly_dagster.manifest.reading.downloads import ask_for_file, attach_files, store_answer
from muxly_dagster.manifest.schema import BinaryResponse, FileSpec
from muxly_dagster.records import JSON_FIELD
from muxly_dagster.services import Services
from muxly_dagster_tests.http.server import Asked, Server, answer

TOKEN = "tok-4711-secret"
BINARY = BinaryResponse(kind="binary")
GET = Request("GET", "/report")


def spec(path: str = "/files/${record.id}", **more: Any) -> FileSpec:
    return FileSpec.model_validate({"request": {"path": path}, **more})


def contents(asked: Asked) -> bytes:
    return answer(200, f"content of {asked.path}", Content_Type="text/plain; charset=utf-8")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def things(**columns: list[Any]) -> pa.Table:
    return pa.table(columns)


def test_every_record_gets_its_file() -> None:
    services = Services()
    with Server(contents) as server, Http(server.url) as http:
        rows = attach_files(http, spec(), {}, things(id=[1, 2]), services)
    assert rows.drop_columns(["file_url"]).to_pylist() == [
        {
            "id": i,
            "file_sha256": sha256(f"content of /files/{i}"),
            "file_size": 19,
            "file_media_type": "text/plain",
            "file_skipped": None,
        }
        for i in (1, 2)
    ]
    for row in rows.to_pylist():
        with open(row["file_url"]) as file:
            assert file.read() == f"content of /files/{row['id']}"
    assert rows.schema.field("file_size").type == pa.int64()


def test_columns_have_their_types_where_no_record_has_a_file() -> None:
    with Http("http://127.0.0.1:1") as http:
        rows = attach_files(http, spec(has="$.file", name="scan"), {}, things(id=[1]), Services())
    assert rows.schema.names == ["id", "scan_url", "scan_sha256", "scan_size", "scan_media_type", "scan_skipped"]
    assert rows.to_pylist()[0]["scan_skipped"] is None
    assert not any(pa.types.is_null(field.type) for field in rows.schema)


def test_only_records_that_have_a_file_are_asked_for_it() -> None:
    described = pa.array(['{"type": "image/png"}', None, '{"type": "x/y"}', None])
    rows = pa.table(
        [pa.array([1, 2, 3, 4]), described], schema=pa.schema([("id", pa.int64()), pa.field("file", pa.string(), metadata=JSON_FIELD)])
    )
    with Server(contents) as server, Http(server.url) as http:
        done = attach_files(http, spec(has="$.file", media_type="$.file.type"), {}, rows, Services())
    assert done["file_media_type"].to_pylist() == ["image/png", None, "x/y", None]
    assert sorted(asked.path for asked in server.asked) == ["/files/1", "/files/3"]


def test_a_record_without_the_address_of_its_file_stays_without_it() -> None:
    with Server(contents) as server, Http(server.url) as http:
        rows = attach_files(http, spec("${record.link}"), {}, things(link=[None, f"{server.url}/files/2"]), Services())
    assert rows["file_size"].to_pylist() == [None, 19]
    assert len(server.asked) == 1


@pytest.mark.parametrize("when", [False, "${config.files}"])
def test_files_may_be_switched_off(when: Any) -> None:
    with Http("http://127.0.0.1:1") as http:
        rows = attach_files(http, spec(when=when), {"config": {"files": False}}, things(id=[1]), Services())
    assert rows.schema.names == ["id"]


def test_a_field_of_the_records_is_not_written_over() -> None:
    with Http("http://127.0.0.1:1") as http, pytest.raises(ConfigurationError, match="'file_size' of their own"):
        attach_files(http, spec(), {}, things(id=[1], file_size=[3]), Services())


def test_rows_that_speak_of_one_file_share_it() -> None:
    with Server(contents) as server, Http(server.url) as http:
        rows = attach_files(http, spec("/files/${record.of}"), {}, things(id=[1, 2, 3], of=[7, 7, 8]), Services())
    assert rows["file_sha256"].to_pylist() == [sha256("content of /files/7")] * 2 + [sha256("content of /files/8")]
    assert len(server.asked) == 2


# ---- without their file ------------------------------------------------------------------------------------------------


def test_files_that_are_too_large_are_left_out_and_their_records_say_so() -> None:
    def reply(asked: Asked) -> bytes:
        return answer(200, "x" * int(asked.path[7:]))

    limited = spec(max_bytes="${config.most}", size="$.bytes")
    context = {"config": {"most": 10}}
    with Server(reply) as server, Http(server.url) as http:
        rows = attach_files(http, limited, context, things(id=[5, 11, 12], bytes=[None, None, "12"]), Services())
    assert rows["file_size"].to_pylist() == [5, None, None]
    assert rows["file_skipped"].to_pylist() == [
        None,
        "the file has 11 bytes, where 10 are allowed",
        "the file has 12 bytes, where 10 are allowed",
    ]
    assert sorted(asked.path for asked in server.asked) == ["/files/11", "/files/5"], "what says its size is not even begun"


def test_a_bound_that_is_no_number_is_a_mistake() -> None:
    with Http("http://127.0.0.1:1") as http, pytest.raises(ConfigurationError, match="max_bytes"):
        attach_files(http, spec(max_bytes="${config.most}"), {"config": {"most": "much"}}, things(id=[1]), Services())


def test_a_file_that_is_gone_leaves_its_record() -> None:
    with Server(lambda asked: answer(404) if asked.path.endswith("2") else contents(asked)) as server, Http(server.url) as http:
        rows = attach_files(http, spec(), {}, things(id=[1, 2]), Services())
    assert rows["file_skipped"].to_pylist() == [None, "not there (404 Not Found)"]


def test_what_the_manifest_skips_leaves_its_record_and_any_other_refusal_ends_the_pull() -> None:
    def judge(response: Response) -> Verdict | None:
        return "skip" if response.status == 403 and b"cannotDownload" in response.content else None

    def reply(asked: Asked) -> bytes:
        return answer(403, "cannotDownload" if asked.path.endswith("1") else "no")

    with Server(reply) as server, Http(server.url, judge=judge) as http:
        rows = attach_files(http, spec(), {}, things(id=[1]), Services(), judge)
        assert rows["file_skipped"].to_pylist() == ["skipped as the manifest says (403 Forbidden)"]
        with pytest.raises(SignInError):
            attach_files(http, spec(), {}, things(id=[2]), Services(), judge)


# ---- the same again ------------------------------------------------------------------------------------------------------


def test_the_same_version_is_not_read_twice_and_another_one_is() -> None:
    services = Services()
    versioned = spec("${record.link}", version="$.v", media_type="$.type")
    with Server(lambda asked: answer(200, asked.path)) as server, Http(server.url) as http:

        def pull(signature: int, *versions: str) -> list[Any]:
            links = [f"{server.url}/{i}?signature={signature}" for i in range(len(versions))]
            rows = things(id=list(range(len(versions))), link=links, v=list(versions), type=["a/b"] * len(versions))
            return attach_files(http, versioned, {}, rows, services, key=["id"]).select(["file_sha256", "file_media_type"]).to_pylist()

        first = pull(1, "x", "x")
        assert (pull(2, "x", "x"), len(server.asked)) == (first, 2)
        pull(3, "x", "y")
        assert len(server.asked) == 3
    assert [row["file_media_type"] for row in first] == ["a/b"] * 2
    assert first[0] != first[1], "records that have the same version are still two"


def test_what_is_no_longer_kept_is_read_again() -> None:
    services = Services()
    with Server(contents) as server, Http(server.url) as http:
        attach_files(http, spec(version="$.v"), {}, things(id=[1], v=["x"]), services)
        elsewhere = Services(answers=services.answers)
        rows = attach_files(http, spec(version="$.v"), {}, things(id=[1], v=["x"]), elsewhere)
    assert len(server.asked) == 2
    assert elsewhere.files.find(rows["file_sha256"][0].as_py()) is not None


def test_without_versions_the_server_is_asked_whether_the_file_is_another_one() -> None:
    def reply(asked: Asked) -> bytes:
        return answer(304) if asked.headers.get("if-none-match") == '"1"' else answer(200, "content", ETag='"1"')

    services = Services()
    with Server(reply) as server, Http(server.url) as http:
        first = attach_files(http, spec(), {}, things(id=[1]), services)
        assert attach_files(http, spec(), {}, things(id=[1]), services).equals(first)
    assert ["if-none-match" in asked.headers for asked in server.asked] == [False, True]


def test_two_accounts_do_not_share_what_they_read() -> None:
    services = Services()
    with Server(contents) as server:
        for token in ("a-token-of-one", "a-token-of-another"):
            with Http(server.url, auth=Bearer(token=SecretStr(token))) as http:
                attach_files(http, spec(version="$.v"), {}, things(id=[1], v=["x"]), services, key=["id"])
    assert len(server.asked) == 2


# ---- addresses that records name -------------------------------------------------------------------------------------------


def test_a_record_may_name_an_address_at_a_listed_host_which_sees_no_credentials() -> None:
    with (
        Server(contents) as store,
        Http("http://127.0.0.1:1", auth=Bearer(token=SecretStr(TOKEN)), hosts=[f"127.0.0.1:{store.port}"]) as http,
    ):
        rows = attach_files(http, spec("${record.link}"), {}, things(link=[f"{store.url}/files/1"]), Services())
    assert rows["file_size"].to_pylist() == [19]
    assert TOKEN not in str(store.asked)


def test_a_record_cannot_lead_anywhere_else() -> None:
    with (
        Server(contents) as elsewhere,
        Http("http://127.0.0.1:1", auth=Bearer(token=SecretStr(TOKEN))) as http,
        pytest.raises(SourceError, match="hosts|own host"),
    ):
        attach_files(http, spec("${record.link}"), {}, things(link=[f"{elsewhere.url}/files/1"]), Services())
    assert elsewhere.asked == []


# ---- answers that are a file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="May 1.pdf"', "May 1.pdf"),
        ("attachment; filename*=UTF-8''f%C3%BCr.pdf", "für.pdf"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\x\\\\y.pdf"', "y.pdf"),
        ("inline", "report"),
    ],
)
def test_an_answer_that_is_a_file_is_stored_and_its_record_says_where(disposition: str, name: str) -> None:
    services = Services()
    pdf = answer(200, "%PDF", Content_Type="application/pdf", Content_Disposition=disposition)
    with Server(lambda asked: pdf) as server, Http(server.url) as http:
        record = store_answer(http, GET, BINARY, services)
        assert ask_for_file(http, GET, BINARY, services).json() == [record]
    assert record.pop("url") == services.files.find(sha256("%PDF"))
    assert record == {"sha256": sha256("%PDF"), "size": 4, "media_type": "application/pdf", "name": name}


def test_an_answer_that_is_too_large_has_no_record(caplog: pytest.LogCaptureFixture) -> None:
    small = BinaryResponse(kind="binary", max_bytes=3)
    with Server(lambda asked: answer(200, "%PDF")) as server, Http(server.url) as http:
        assert ask_for_file(http, GET, small, Services()).json() == []
        with pytest.raises(FileTooLarge):
            store_answer(http, GET, small, Services())
    assert "the file is left out" in caplog.text


def test_an_answer_that_the_manifest_skips_stays_what_it_is() -> None:
    with Server(lambda asked: answer(404, "none today")) as server, Http(server.url, judge=lambda response: "skip") as http:
        assert ask_for_file(http, GET, BINARY, Services()).content == b"none today"
        with pytest.raises(SourceError, match="no file"):
            store_answer(http, GET, BINARY, Services())
