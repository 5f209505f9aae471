"""What a manifest, its API or a plugin may do to harm: refused with what to do, within bounded memory, and nothing is lost by it."""

import gzip
import io
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from muxly_dagster.errors import ConfigurationError, RetryLater, SourceError
from muxly_dagster_tests.bad_input.shop import PULL, TARGET, Api, Shop, Trouble, things, without_secrets
from muxly_dagster_tests.bad_input.test_answers import matches
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer
from muxly_dagster_tests.plugins.shelf import local, write

MIB = 2**20
FILE_SIZE = 10 * 2**30


# ---- where requests go -----------------------------------------------------------------------------------------------


def test_a_manifest_with_a_host_outside_its_hosts_asks_nobody(shop: Shop, api: Api, server: Server) -> None:
    shop.sync()
    right, asked = (shop.folder / "shop.yaml").read_text(), len(server.asked)
    shop.write("shop.yaml", right.replace("path: /things", "path: https://evil.example/things"))
    with pytest.raises(ConfigurationError) as caught:
        shop.open()
    [problem] = without_secrets(caught.value).problems  # type: ignore[attr-defined]
    assert problem.file.endswith("shop.yaml") and problem.line == 1 + right[: right.index("path: /things")].count("\n")
    assert "the host evil.example is not among `hosts`" in problem.what
    assert problem.do == "add it there"
    assert len(server.asked) == asked
    api.pages.append(things(12, 13))
    shop.write("shop.yaml", right)
    assert shop.is_complete()


def test_a_redirect_to_another_host_is_not_followed_with_the_credentials(shop: Shop, api: Api) -> None:
    with Server(lambda _: json_answer({"results": [], "next": None})) as other:
        elsewhere = f"http://localhost:{other.port}/collect"  # another name than the one that the manifest lists
        shop.sync()
        api.pages.append(things(12, 13))
        api.troubles[2] = lambda _: answer(302, Location=elsewhere)
        error = shop.fails(SourceError)
        assert matches("redirects to a place at localhost:.*not followed", error.what)
        assert "if you trust that host, list it under `hosts`" in error.do
        assert other.asked == []
        assert shop.run(TARGET).read == 0, "nothing is gone because a page was not read"
        api.troubles.clear()
        assert shop.is_complete()


# ---- what unpacks to more than the memory ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Packing:
    """How a stream's answers are written, how the API packs a page, a bomb in that form, and what is said of it."""

    stream: dict[str, Any]
    pack: Callable[[bytes], bytes]
    bomb: Callable[[], bytes]
    what: str
    do: str


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("page.json", content)
    return buffer.getvalue()


def as_xml(page: bytes) -> bytes:
    found = yaml.safe_load(page)
    records = "".join(f"<thing><id>{each['id']}</id><amount>{each['amount']}</amount></thing>" for each in found["results"])
    following = "" if found["next"] is None else f"<next>{found['next']}</next>"
    return f"<shop>{records}{following}</shop>".encode()


def laughs() -> bytes:
    """Ten entities, each ten times the one before: 10^10 laughs in a kilobyte."""
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 11))
    return f'<?xml version="1.0"?><!DOCTYPE z [<!ENTITY l0 "ha">{entities}]><shop>&l10;</shop>'.encode()


XML: dict[str, Any] = {
    "response": {"kind": "xml"},
    "records": "$.shop.thing",
    "types": {"amount": "integer"},
    "paging": {"kind": "cursor", "next": "$.shop.next", "into": "query.page"},
}
TOO_MUCH = "unpacks to more bytes than are allowed"
PACKINGS = {
    "an XML bomb": Packing(XML, as_xml, laughs, "declares a document type or entities", "."),
    "a zip bomb": Packing(
        {"response": {"kind": "json", "compression": "zip"}}, zipped, lambda: zipped(b" " * (64 * MIB)), TOO_MUCH, "max_answer"
    ),
    "a gzip bomb": Packing(
        {"response": {"kind": "json", "compression": "gzip"}},
        gzip.compress,
        lambda: gzip.compress(b" " * (64 * MIB), 1),
        TOO_MUCH,
        "max_answer",
    ),
}


@dataclass
class PackedApi(Api):
    """Serves its pages packed."""

    pack: Callable[[bytes], bytes] = bytes

    def page(self, number: int) -> bytes:
        return answer(200, self.pack(super().page(number).partition(b"\r\n\r\n")[2]))


@pytest.mark.parametrize("name", PACKINGS)
def test_a_bomb_goes_off_nowhere(name: str, tmp_path: Path) -> None:
    packing = PACKINGS[name]
    api = PackedApi(pack=packing.pack)
    with Server(api.reply) as server:
        shop = Shop(tmp_path, server.url, api, f"sqlite:///{tmp_path}/warehouse.db", stream=packing.stream)
        manifest = yaml.safe_load((tmp_path / "shop.yaml").read_text())
        shop.write("shop.yaml", manifest | {"max_answer": 8 * MIB})
        shop.sync()
        api.pages.append(things(12, 13))
        bomb = packing.bomb()
        api.troubles[3] = lambda _: answer(200, bomb)
        with peak_below(40 * MIB):
            error = shop.fails(SourceError)
        assert packing.what in error.what
        assert matches(packing.do, error.do)
        assert shop.run(TARGET).read == 0
        api.troubles.clear()
        assert shop.is_complete()


@contextmanager
def peak_below(most: int) -> Iterator[None]:
    """Fails when the block needs more bytes of Python's memory at once."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most, f"{peak / MIB:.0f} MiB"


# ---- a file of 10 GB -------------------------------------------------------------------------------------------------


@dataclass
class FilesApi(Api):
    """Every third thing has a file, at /files/ID. `file` answers for it."""

    file: Trouble = lambda _: answer(200, b"small", ETag='"small"')

    def __post_init__(self) -> None:
        self.pages = [[{**each, "scan": None if each["amount"] % 3 else "yes"} for each in page] for page in self.pages]
        self.asked_for_files: list[Asked] = []

    def reply(self, asked: Asked) -> bytes | list[bytes]:
        if not asked.path.startswith("/files/"):
            return super().reply(asked)
        self.asked_for_files.append(asked)
        return self.file(asked) or answer(404)


@pytest.fixture
def files() -> FilesApi:
    return FilesApi()


@pytest.fixture
def open_files(tmp_path: Path, files: FilesApi) -> Iterator[Callable[..., Shop]]:
    with Server(files.reply) as server:

        def make(**limits: Any) -> Shop:
            stream = {"file": {"request": {"path": "/files/${record.id}"}, "has": "$.scan", "name": "scan_of", **limits}}
            return Shop(tmp_path, server.url, files, f"sqlite:///{tmp_path}/warehouse.db", stream=stream)

        yield make


def head(status: int = 200, start: int = 0) -> bytes:
    """The beginning of an answer with the rest of a file of 10 GB."""
    range_ = f"Content-Range: bytes {start}-{FILE_SIZE - 1}/{FILE_SIZE}\r\n" if status == 206 else ""
    return f'HTTP/1.1 {status} X\r\nContent-Length: {FILE_SIZE - start}\r\nETag: "huge"\r\n{range_}\r\n'.encode()


def test_a_file_of_10_gb_is_left_out_where_it_is_too_large(open_files: Callable[..., Shop], files: FilesApi) -> None:
    files.file = lambda asked: [head(), bytes(MIB), Server.cut] if asked.path.endswith("t0003") else answer(200, b"small", ETag='"small"')
    shop = open_files()
    assert shop.run(PULL).read == 12
    with shop.open() as runtime:
        found = {row["id"]: row for row in runtime.query(f"select * from {PULL} where scan is not null order by id").to_pylist()}
    assert found.keys() == {"t0000", "t0003", "t0006", "t0009"}
    assert found["t0003"]["scan_of_skipped"] == "the file has 10,737,418,240 bytes, where 2,147,483,648 are allowed"
    assert [row["scan_of_size"] for row in found.values()] == [5, None, 5, 5]
    assert shop.is_complete()


def test_a_file_of_10_gb_that_breaks_off_goes_on_there(open_files: Callable[..., Shop], files: FilesApi) -> None:
    came = 24 * MIB

    def breaks_off(asked: Asked) -> bytes | list[bytes] | None:
        if not asked.path.endswith("t0003"):
            return answer(200, b"small", ETag='"small"')
        if "range" not in asked.headers:
            return [head(), *[bytes(MIB)] * 24, Server.cut]
        return answer(503)

    shop = open_files(max_bytes=20 * 2**30)
    shop.sync()
    files.file = breaks_off
    with peak_below(20 * MIB):
        error = shop.fails(RetryLater)
    assert "gave up after 6 attempts" in error.what
    assert error.do
    assert "t0003" in error.where
    [partial] = (shop.folder / ".muxly").rglob("*.partial")
    assert partial.stat().st_size == came

    files.asked_for_files.clear()
    shop.fails(RetryLater)
    ranges = {asked.headers.get("range") for asked in files.asked_for_files if asked.path.endswith("t0003")}
    assert ranges == {f"bytes={came}-"}, "it goes on where it broke off, and never begins anew"

    files.file = lambda _: answer(200, b"small", ETag='"small"')  # another version: of the old one nothing is used
    assert shop.is_complete()
    assert not partial.exists()
    with shop.open() as runtime:
        rows = runtime.query(f"select scan_of_size as size, scan_of_url as url from {PULL} where scan is not null order by id").to_pylist()
    assert [row["size"] for row in rows] == [5] * 4
    assert {Path(row["url"].removeprefix("file://")).read_bytes() for row in rows} == {b"small"}


# ---- plugins ---------------------------------------------------------------------------------------------------------


def test_a_plugin_that_hangs_at_import_holds_nobody_else_up(shop: Shop, api: Api) -> None:
    shop.sync()
    right = yaml.safe_load((shop.folder / "muxly.yaml").read_text())
    hanging = shop.folder / "hanging"  # as long as this exists: the thread that Python cannot end shall end with the test
    hanging.touch()
    code = f"import pathlib, time\nwhile pathlib.Path({str(hanging)!r}).exists():\n    time.sleep(0.01)\n"
    write(shop.folder / "own" / "ledger.py", code)
    shop.environ["MUXLY_PLUGIN_SECONDS"] = "0.2"
    shop.write("muxly.yaml", {"plugins": ["./own"], **right})
    api.pages.append(things(12, 13))
    with shop.open() as runtime:
        [warning] = runtime.assembly.warnings
    assert "its import did not end within 0.2 seconds" in warning.what
    assert "MUXLY_PLUGIN_SECONDS" in warning.do
    assert shop.is_complete()

    used = {**right, "sources": {**right["sources"], "books": {"connector": "ledger", "pulls": ["all"]}}}
    shop.write("muxly.yaml", {"plugins": ["./own"], **used})
    with pytest.raises(ConfigurationError) as caught:
        shop.open()
    told = str(without_secrets(caught.value))
    assert "its import did not end within 0.2 seconds" in told
    assert "sources.books.connector" in told
    assert all(problem.do for problem in caught.value.problems)

    api.pages.append(things(14))
    write(shop.folder / "own" / "ledger.py", local("ledger"))
    hanging.unlink()
    shop.environ.pop("MUXLY_PLUGIN_SECONDS")
    with shop.open() as runtime:
        assert runtime.assembly.warnings == () and runtime.run("books.all").read == 0
    assert shop.is_complete()
