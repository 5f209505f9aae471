"""Answers of other kinds and files on the road: from a manifest into the lake, and not read again while they are the same."""

import gzip
from decimal import Decimal
from pathlib import Path

import pytest

from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer

MANIFEST = """
muxly: 1
id: archive
version: 1.0.0
title: Archive
hosts: [127.0.0.1]
base_url: URL
streams:
  prices:
    request: {path: /prices, cache: true}
    response: {kind: csv, compression: gzip, delimiter: ";"}
    key: [id]
    types: {price: "decimal(10,2)"}
  items: {request: {path: /items}, response: {kind: xml}, records: $.r.i, key: [id]}
  report: {request: {path: /report}, response: {kind: binary}, key: [name]}
  documents:
    request: {path: /documents}
    key: [id]
    file: {request: {path: "${record.url}"}, has: $.url, version: $.revision}
"""
PROJECT = "sources: {a: {connector: ./archive.yaml, pulls: {prices: {}, items: {}, report: {}, documents: {}}}}\n"


def reply(asked: Asked) -> bytes:
    if asked.path == "/prices":
        packed = gzip.compress(b"id;price\n1;2.50\n9;8;7\n")
        return answer(304) if "if-none-match" in asked.headers else answer(200, packed, ETag='"1"')
    if asked.path == "/items":
        return answer(200, b"<r><i><id>007</id></i></r>")
    if asked.path == "/documents":
        return json_answer([{"id": 1, "revision": "a", "url": f"http://{asked.headers['host']}/content"}, {"id": 2, "revision": "a"}])
    return answer(200, b"%PDF", Content_Type="application/pdf")


@pytest.fixture
def project(tmp_path: Path) -> Settings:
    (tmp_path / "muxly.yaml").write_text(PROJECT)
    return Settings.from_environ({}, tmp_path)


def pull(settings: Settings) -> tuple[dict[str, int], dict[str, list[dict[str, object]]]]:
    """Changes and current rows of every pull, by a runtime of its own."""
    with Runtime.open(settings, {}) as runtime:
        names = list(runtime.assembly.pulls)
        changed = {name: runtime.run(name).changed for name in names}
        return changed, {name: runtime.query(f"select * from {name}").to_pylist() for name in names}


def test_answers_of_every_kind_and_files_reach_the_lake_once(project: Settings, tmp_path: Path) -> None:
    with Server(reply) as server:
        (tmp_path / "archive.yaml").write_text(MANIFEST.replace("URL", server.url))
        first, rows = pull(project)
        asked = len(server.asked)
        second, same = pull(project)
    assert first == {"a.prices": 1, "a.items": 1, "a.report": 1, "a.documents": 2}
    assert (set(second.values()), same) == ({0}, rows)
    assert [one.path for one in server.asked[asked:]] == ["/prices", "/items", "/report", "/documents"], "no file a second time"
    assert rows["a.prices"] == [{"id": "1", "price": Decimal("2.50")}]
    assert rows["a.items"] == [{"id": "007"}]
    assert Path(str(rows["a.report"][0]["url"])).read_bytes() == b"%PDF"
    files = {row["id"]: row["file_url"] for row in rows["a.documents"]}
    assert files == {1: rows["a.report"][0]["url"], 2: None}, "the same content is kept once"
    assert str(files[1]).startswith(project.lake_url)


def test_a_preview_keeps_no_file(project: Settings, tmp_path: Path) -> None:
    with Server(reply) as server:
        (tmp_path / "archive.yaml").write_text(MANIFEST.replace("URL", server.url))
        with Runtime.open(project, {}) as runtime:
            assert [record["file_size"] for record in runtime.preview("a.documents", 2)] == [4, None]
    assert list(project.home.rglob("_files")) == []
