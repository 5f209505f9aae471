"""Downloads: whole files whatever happens on the way, never too large, never a mixture of two versions, secrets to nobody else."""

import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from muxly_dagster.auth import ApiKey, Bearer
from muxly_dagster.errors import MuxlyError, RetryLater, SourceError
from muxly_dagster.http import Download, FileTooLarge, Http, Request, Retries
from muxly_dagster.http.wire import PIECE
from muxly_dagster_tests.http.server import Asked, Server, answer

pytestmark = pytest.mark.usefixtures("over")

TOKEN = "tok-4711-secret"
MIB = 2**20
FILE = bytes(range(256)) * (3 * MIB // 256)
GET = Request("GET", "/file")
QUICK = Retries(base=0)


def head(size: int, status: int = 200, **headers: str) -> bytes:
    fields = {"Content-Length": str(size), **{name.replace("_", "-"): value for name, value in headers.items()}}
    return f"HTTP/1.1 {status} X\r\n".encode() + b"".join(f"{n}: {v}\r\n".encode() for n, v in fields.items()) + b"\r\n"


def ranged(content: bytes, asked: Asked, etag: str = '"1"') -> bytes:
    """What a server with ranges answers (RFC 9110, 14)."""
    start = int(asked.headers.get("range", "bytes=0-")[6:-1])
    if "range" not in asked.headers or asked.headers.get("if-range") != etag:
        return answer(200, content, ETag=etag)
    return answer(206, content[start:], ETag=etag, Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}")


def get(http: Http, path: Path, **more: Any) -> bytes:
    done = http.download(GET, path, **{"max_bytes": 100 * MIB, **more})
    assert done.path == path
    assert done.size == path.stat().st_size
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing is left beside it"
    return path.read_bytes()


def test_a_file_is_downloaded_as_it_is_and_asked_for_as_it_is(tmp_path: Path) -> None:
    with Server(lambda asked: answer(200, FILE, Content_Type="Image/PNG; x=1")) as server, Http(server.url) as http:
        done = http.download(GET, tmp_path / "f", max_bytes=len(FILE))
    assert (tmp_path / "f").read_bytes() == FILE
    assert (done.size, done.media_type, done.response.status) == (len(FILE), "image/png", 200)
    assert (server.asked[0].headers["accept-encoding"], server.asked[0].headers["accept"]) == ("identity", "*/*")


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    with Server(lambda asked: answer(200, b"", Content_Encoding="gzip")) as server, Http(server.url) as http:
        assert get(http, tmp_path / "f") == b""


def test_a_file_without_a_known_size_is_downloaded(tmp_path: Path) -> None:
    chunked = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    with Server(lambda asked: chunked) as server, Http(server.url) as http:
        assert get(http, tmp_path / "f") == b"abcde"


# ---- broken off ------------------------------------------------------------------------------------------------------


def breaks_off(content: bytes, after: int, etag: str = '"1"') -> Callable[[Asked], Any]:
    """A server that loses the connection after so many bytes of every answer that is longer."""

    def reply(asked: Asked) -> Any:
        whole = ranged(content, asked, etag)
        beginning = whole.index(b"\r\n\r\n") + 4
        return [whole[: beginning + after], Server.cut] if len(whole) > beginning + after else whole

    return reply


def test_a_download_goes_on_where_it_broke_off_however_often(tmp_path: Path) -> None:
    with Server(breaks_off(FILE, 200_000)) as server, Http(server.url, retries=QUICK) as http:
        assert get(http, tmp_path / "f") == FILE
    assert len(server.asked) > QUICK.attempts, "attempts count anew where a download comes forward"
    assert {asked.headers.get("if-range") for asked in server.asked} == {None, '"1"'}
    starts = [int(asked.headers.get("range", "bytes=0-")[6:-1]) for asked in server.asked]
    assert starts == sorted(starts)


def test_a_download_goes_on_in_a_later_process(tmp_path: Path) -> None:
    with Server(breaks_off(FILE, MIB - 1)) as server:
        with Http(server.url, retries=Retries(attempts=1)) as http, suppress(RetryLater):
            http.download(GET, tmp_path / "f", max_bytes=9 * MIB)
        assert (tmp_path / "f").stat().st_size == MIB - 1
        with Http(server.url, retries=QUICK) as http:
            assert get(http, tmp_path / "f") == FILE
    assert server.asked[1].headers["range"] == f"bytes={MIB - 1}-"


def test_what_is_complete_but_was_not_taken_is_asked_for_its_last_byte_alone(tmp_path: Path) -> None:
    part_of(tmp_path / "f", FILE, length=len(FILE))
    with Server(lambda asked: ranged(FILE, asked)) as server, Http(server.url) as http:
        assert get(http, tmp_path / "f") == FILE
    assert [asked.headers["range"] for asked in server.asked] == [f"bytes={len(FILE) - 1}-"]


def part_of(path: Path, content: bytes, *, etag: str = '"1"', length: int | None = None) -> None:
    path.write_bytes(content)
    path.with_name(path.name + ".json").write_text(json.dumps({"etag": etag, "last_modified": "", "length": length, "encoding": ""}))


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(lambda asked: ranged(FILE, asked, '"2"'), id="the server sees it and sends all of it"),
        pytest.param(lambda asked: answer(200, FILE), id="the server knows no ranges"),
        pytest.param(
            lambda asked: (
                answer(206, FILE[5:], ETag='"2"', Content_Range=f"bytes 5-{len(FILE) - 1}/{len(FILE)}")
                if "range" in asked.headers
                else answer(200, FILE, ETag='"2"')
            ),
            id="the server sends a part of the new one",
        ),
        pytest.param(
            lambda asked: (
                answer(206, FILE, ETag='"1"', Content_Range=f"bytes 0-{len(FILE) - 1}/{len(FILE)}")
                if "range" in asked.headers
                else answer(200, FILE)
            ),
            id="the server sends another part",
        ),
        pytest.param(lambda asked: answer(416, b"no") if "range" in asked.headers else answer(200, FILE), id="the server has fewer bytes"),
    ],
)
def test_a_file_that_cannot_be_continued_is_downloaded_anew(reply: Callable[[Asked], bytes], tmp_path: Path) -> None:
    part_of(tmp_path / "f", b"older")
    with Server(reply) as server, Http(server.url, retries=Retries(attempts=1)) as http:
        assert get(http, tmp_path / "f") == FILE


@pytest.mark.parametrize("validators", [{}, {"ETag": 'W/"1"'}, {"Last_Modified": "Sat, 01 Nov 2025 10:00:00 GMT"}])
def test_without_a_strong_validator_a_download_begins_anew(validators: dict[str, str], tmp_path: Path) -> None:
    def reply(asked: Asked) -> list[bytes]:
        return [head(8, **validators), b"abcd", *([Server.cut] if asked.number == 1 else [b"efgh"])]

    with Server(reply) as server, Http(server.url, retries=QUICK) as http:
        assert get(http, tmp_path / "f") == b"abcdefgh"
    assert ["range" in asked.headers for asked in server.asked] == [False, False]


def test_a_date_well_before_the_answer_is_a_validator(tmp_path: Path) -> None:
    dates = {"Last_Modified": "Sat, 01 Nov 2025 10:00:00 GMT", "Date": "Sat, 01 Nov 2025 10:00:09 GMT"}

    def reply(asked: Asked) -> Any:
        return answer(206, b"efgh", Content_Range="bytes 4-7/8", **dates) if asked.number > 1 else [head(8, **dates), b"abcd", Server.cut]

    with Server(reply) as server, Http(server.url, retries=QUICK) as http:
        assert get(http, tmp_path / "f") == b"abcdefgh"
    assert server.asked[1].headers["if-range"] == dates["Last_Modified"]


def test_a_server_that_announces_more_than_it_sends_never_makes_a_file(tmp_path: Path) -> None:
    def reply(asked: Asked) -> list[bytes]:
        return [head(100, ETag='"1"'), b"x" * 50, Server.cut]

    with (
        Server(reply) as server,
        Http(server.url, retries=Retries(attempts=2, base=0)) as http,
        pytest.raises(RetryLater, match="broke off"),
    ):
        http.download(GET, tmp_path / "f", max_bytes=MIB)
    assert len(server.asked) == 2, "no progress, no further attempts"
    assert (tmp_path / "f.json").exists(), "what came is still marked as a part"


def test_a_client_that_is_closed_ends_its_downloads_and_keeps_what_came(tmp_path: Path) -> None:
    over = threading.Event()

    def parts() -> Iterator[bytes]:
        yield head(1024 * MIB, ETag='"1"')
        while not over.wait(0.01):
            yield b"x" * 1000
        yield Server.cut

    with Server(lambda asked: parts()) as server:  # type: ignore[arg-type, return-value]
        http = Http(server.url)

        def close_on_the_way() -> None:
            while not (tmp_path / "f").exists():
                over.wait(0.01)
            http.close()

        closer = threading.Thread(target=close_on_the_way)
        closer.start()
        with pytest.raises(RetryLater):
            http.download(GET, tmp_path / "f", max_bytes=1024 * MIB)
        over.set()
        closer.join()
    assert (tmp_path / "f.json").exists()


# ---- too much --------------------------------------------------------------------------------------------------------


def test_a_file_that_says_it_is_too_large_is_not_begun(tmp_path: Path) -> None:
    with (
        Server(lambda asked: [head(10 * 2**30), Server.cut]) as server,
        Http(server.url) as http,
        pytest.raises(FileTooLarge, match="10,737,418,240 bytes, where 1,048,576 are allowed"),
    ):
        http.download(GET, tmp_path / "f", max_bytes=MIB)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_say_so_is_given_up_at_the_bound(tmp_path: Path) -> None:
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    endless = [b'HTTP/1.1 200 X\r\nETag: "1"\r\nTransfer-Encoding: chunked\r\n\r\n', *[piece] * 40, Server.cut]
    with Server(lambda asked: endless) as server, Http(server.url) as http, pytest.raises(FileTooLarge, match="goes on"):
        http.download(GET, tmp_path / "f", max_bytes=MIB)
    assert list(tmp_path.iterdir()) == []


def test_a_large_file_passes_through_in_small_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[int] = []
    with Server(lambda asked: [head(64 * MIB), *[b"\0" * MIB] * 64]) as server, Http(server.url) as http:
        receive = http._transport.receive

        def counting(method: str, url: str, headers: Any, content: Any, take: Any) -> Any:
            def taken(status: int, received: Any) -> Any:
                write = take(status, received)
                return lambda piece: (pieces.append(len(piece)), write(piece))

            return receive(method, url, headers, content, taken)

        monkeypatch.setattr(http._transport, "receive", counting)
        done = http.download(GET, tmp_path / "f", max_bytes=64 * MIB)
    assert done.size == sum(pieces) == 64 * MIB
    assert max(pieces) <= PIECE


def test_ten_gigabytes_are_continued_at_their_end(tmp_path: Path) -> None:
    ten = 10 * 2**30
    part_of(tmp_path / "f", b"", length=ten)
    with (tmp_path / "f").open("r+b") as file:
        file.truncate(ten - 100)  # a hole: no bytes on the disk
    last = answer(206, b"y" * 100, ETag='"1"', Content_Range=f"bytes {ten - 100}-{ten - 1}/{ten}")
    with Server(lambda asked: last) as server, Http(server.url) as http:
        assert http.download(GET, tmp_path / "f", max_bytes=ten).size == ten
    with (tmp_path / "f").open("rb") as file:
        file.seek(ten - 101)
        assert file.read() == b"\0" + b"y" * 100
    assert server.asked[0].headers["range"] == f"bytes={ten - 100}-"


# ---- compressed all the same ------------------------------------------------------------------------------------------


def test_a_body_that_comes_compressed_is_unpacked_once_it_is_whole(tmp_path: Path) -> None:
    packed = gzip.compress(FILE)

    def reply(asked: Asked) -> Any:
        start = int(asked.headers.get("range", "bytes=0-")[6:-1])
        if not start:
            return [head(len(packed), ETag='"1"', Content_Encoding="gzip"), packed[:500], Server.cut]
        span = f"bytes {start}-{len(packed) - 1}/{len(packed)}"
        return answer(206, packed[start:], ETag='"1"', Content_Encoding="gzip", Content_Range=span)

    with Server(reply) as server, Http(server.url, retries=QUICK) as http:
        assert get(http, tmp_path / "f") == FILE


def test_a_small_body_that_unpacks_to_more_than_is_allowed_is_given_up(tmp_path: Path) -> None:
    bomb = gzip.compress(b"\0" * (64 * MIB))
    with Server(lambda asked: answer(200, bomb, Content_Encoding="gzip")) as server, Http(server.url) as http, pytest.raises(FileTooLarge):
        http.download(GET, tmp_path / "f", max_bytes=MIB)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("encoding", "what"), [("br", "compressed as 'br'"), ("gzip", "cannot be unpacked")])
def test_a_body_that_cannot_be_unpacked_is_an_error(encoding: str, what: str, tmp_path: Path) -> None:
    with (
        Server(lambda asked: answer(200, b"what is this", Content_Encoding=encoding)) as server,
        Http(server.url) as http,
        pytest.raises(SourceError, match=what),
    ):
        http.download(GET, tmp_path / "f", max_bytes=MIB)
    assert list(tmp_path.iterdir()) == []


# ---- answers that are no file, disks that take none ----------------------------------------------------------------------


def test_an_answer_that_says_no_is_the_usual_error(tmp_path: Path) -> None:
    with Server(lambda asked: answer(404, "never heard of it")) as server, Http(server.url) as http:
        with pytest.raises(SourceError, match="nothing at this address.*never heard of it"):
            http.download(GET, tmp_path / "f", max_bytes=MIB)
        done = http.download(Request("GET", "/file", expected=frozenset({404})), tmp_path / "f", max_bytes=MIB)
    assert (done.path, done.size, done.response.status) == (None, 0, 404)


def test_a_passing_trouble_is_met_as_with_any_request(tmp_path: Path) -> None:
    with Server(lambda asked: answer(503) if asked.number == 1 else answer(200, b"x")) as server, Http(server.url, retries=QUICK) as http:
        assert get(http, tmp_path / "f") == b"x"


def test_a_part_that_nobody_asked_for_is_an_error(tmp_path: Path) -> None:
    part = answer(206, b"x", Content_Range="bytes 5-5/6")
    with Server(lambda asked: part) as server, Http(server.url) as http, pytest.raises(SourceError, match="a part of the file"):
        http.download(GET, tmp_path / "f", max_bytes=MIB)


def test_a_disk_that_takes_no_file_is_named(tmp_path: Path) -> None:
    with (
        Server(lambda asked: answer(200, b"x")) as server,
        Http(server.url) as http,
        pytest.raises(MuxlyError, match="nowhere.*cannot be written"),
    ):
        http.download(GET, tmp_path / "nowhere" / "f", max_bytes=MIB)


# ---- other hosts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", [Bearer(token=SecretStr(TOKEN)), ApiKey(key=SecretStr(TOKEN), name="key", into="query")])
def test_a_redirect_leads_to_listed_hosts_alone_and_without_credentials(auth: Any, tmp_path: Path) -> None:
    with (
        Server(lambda asked: answer(200, b"content")) as store,
        Server(lambda asked: answer(302, Location=f"{store.url}/signed?s=1")) as server,
    ):
        with Http(server.url, auth=auth) as http, pytest.raises(SourceError, match="not followed") as caught:
            http.download(GET, tmp_path / "f", max_bytes=MIB)
        assert store.asked == []
        assert TOKEN not in str(caught.value)
        with Http(server.url, auth=auth, hosts=[f"127.0.0.1:{store.port}"]) as http:
            assert get(http, tmp_path / "f") == b"content"
    assert TOKEN in str(server.asked[-1])
    assert TOKEN not in str(store.asked)


@pytest.mark.parametrize("auth", [Bearer(token=SecretStr(TOKEN)), ApiKey(key=SecretStr(TOKEN), name="key", into="query")])
def test_an_address_that_a_record_names_sees_no_credentials_unless_it_is_at_home(auth: Any, tmp_path: Path) -> None:
    with (
        Server(lambda asked: answer(200, b"content")) as store,
        Server(lambda asked: answer(200, b"own")) as server,
        Http(server.url, auth=auth, hosts=[f"127.0.0.1:{store.port}"]) as http,
    ):
        http.download(Request("GET", f"{store.url}/signed", at_home=True), tmp_path / "f", max_bytes=MIB)
        http.download(Request("GET", f"{server.url}/own", at_home=True), tmp_path / "f", max_bytes=MIB)
    assert TOKEN not in str(store.asked)
    assert TOKEN in str(server.asked)


# ---- many ---------------------------------------------------------------------------------------------------------------


def test_many_files_come_at_the_same_time_in_order_and_the_one_too_large_spoils_no_other(tmp_path: Path) -> None:
    together = threading.Barrier(3)

    def reply(asked: Asked) -> bytes:
        together.wait(30)
        return answer(200, b"x" * (int(asked.path[1:]) + 1))

    with Server(reply) as server, Http(server.url) as http:
        wanted = [Download(Request("GET", f"/{i}"), tmp_path / str(i), 4) for i in range(6)]
        done = list(http.downloads(wanted, 3, lambda download, done: (download.path.name, getattr(done, "size", None))))
    assert done == [("0", 1), ("1", 2), ("2", 3), ("3", 4), ("4", None), ("5", None)]
    assert server.most_at_once == 3


def test_every_byte_is_the_right_one_wherever_a_connection_is_lost(tmp_path: Path) -> None:
    content = hashlib.sha512(b"seed").digest() * 40
    for after in (1, 63, 64, 1000, len(content) - 1):
        with (
            Server(breaks_off(content, after) if after > 900 else breaks_first(content, after)) as server,
            Http(server.url, retries=QUICK) as http,
        ):
            assert get(http, tmp_path / "f") == content
        (tmp_path / "f").unlink()


def breaks_first(content: bytes, after: int) -> Callable[[Asked], Any]:
    return lambda asked: breaks_off(content, after)(asked) if asked.number == 1 else ranged(content, asked)
