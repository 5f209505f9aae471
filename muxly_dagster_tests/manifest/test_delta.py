"""Delta sync loses nothing: not what happens while the full pull runs, not when a token expires, not what was deleted meanwhile."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from muxly_dagster.errors import SourceError
from muxly_dagster.manifest.connector import load_manifest
from muxly_dagster.testing.connectors import Pulled
from muxly_dagster_tests.http.server import Asked, Server, json_answer
from muxly_dagster_tests.manifest.conftest import Make, ids, pull
from muxly_dagster_tests.peers.notes import TOKEN, Notes, NotesProvider

NOTES = Path(__file__).parent / "notes.yaml"


@pytest.fixture
def api() -> Iterator[Notes]:
    with Notes() as api:
        yield api


def place(api: Notes, folder: Path, stream: str, manifest: Path = NOTES, **fields: Any) -> Pulled:
    """Somewhere to pull a stream of the notes into."""
    kind = load_manifest(manifest)
    return Pulled(NotesProvider(api, stream, lambda **given: kind(**given, **fields)), folder)


def texts(pulled: Pulled) -> dict[str, str]:
    """The current notes by id; by `box/id` where they have boxes."""
    from muxly_dagster.lake import Lake

    table = Lake(str(pulled.folder / "lake")).table(pulled.name)
    rows = table.current().to_pylist() if table else []
    return {f"{row['box']}/{row['id']}" if row.get("box") else row["id"]: row["text"] for row in rows}


def once(happens: Callable[[], None], path: str) -> Callable[[Asked], None]:
    """A hook that lets something happen behind the first page of a path."""
    done: list[bool] = []

    def hook(asked: Asked) -> None:
        if asked.path == path and not done:
            done.append(True)
            happens()

    return hook


@pytest.mark.parametrize(("stream", "path"), [("seeded", "/notes"), ("tree", "/tree")])
def test_what_happens_during_the_full_pull_comes_with_the_next_one(api: Notes, tmp_path: Path, stream: str, path: str) -> None:
    for name in "abcd":
        api.write(name, "first")

    def meanwhile() -> None:
        api.write("a", "second")
        api.remove("c")
        api.write("e", "first")

    api.before_page = once(meanwhile, path)
    pulled = place(api, tmp_path, stream)
    pulled.run()
    pulled.run()
    assert texts(pulled) == {"a": "second", "b": "first", "d": "first", "e": "first"}


@pytest.mark.parametrize("stream", ["seeded", "tree"])
def test_a_token_that_expires_between_two_pages_of_changes_leads_to_a_full_pull(
    api: Notes, tmp_path: Path, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abcdef":
        api.write(name, "first")
    pulled = place(api, tmp_path, stream)
    pulled.run()
    for name in "abc":
        api.write(name, "second")
    api.remove("f")

    def forget() -> None:
        api.write("d", "second")
        api.expire()

    api.before_page = once(forget, "/changes" if stream == "seeded" else "/tree")
    with caplog.at_level(logging.WARNING, "muxly.manifest"):
        pulled.run()
    assert "no longer knows the token" in caplog.text
    assert texts(pulled) == {"a": "second", "b": "second", "c": "second", "d": "second", "e": "first"}


@pytest.mark.parametrize("stream", ["seeded", "tree"])
def test_of_a_key_that_comes_more_than_once_the_last_word_counts(api: Notes, tmp_path: Path, stream: str) -> None:
    for name in "abc":
        api.write(name, "first")
    pulled = place(api, tmp_path, stream)
    pulled.run()
    api.remove("a")
    api.write("b", "second")
    api.write("a", "back")  # another page than its removal
    api.remove("b")
    api.write("c", "second")
    api.remove("c")  # the same page as its change
    assert pulled.run().metadata["quarantined"] == 0
    assert texts(pulled) == {"a": "back"}


def test_a_folder_that_is_deleted_takes_with_it_what_lies_below(api: Notes, tmp_path: Path) -> None:
    for name in ("x", "x/1", "x/2/3", "x1", "y/1"):
        api.write(name, "first")
    pulled = place(api, tmp_path, "tree")
    pulled.run()
    api.remove("x")
    api.write("x", "back")
    api.write("x/4", "new")
    api.write("x/9", "short-lived")
    api.remove("x/9")
    pulled.run()
    assert texts(pulled) == {"x": "back", "x/4": "new", "x1": "first", "y/1": "first"}


def test_the_mark_of_deleted_records_is_no_column_of_the_others(make: Make) -> None:
    pages = iter([{"results": [{"id": 1, "v": 1}], "token": "t"}, {"results": [{"id": 1, "deleted": {"state": "deleted"}}], "token": "u"}])
    sync = {"kind": "delta", "seed": "pages", "token": "$.token", "expired": [410], "deletes": {"column": "deleted"}}
    request = {"path": "/delta", "query": {"token": "${token}"}}
    with Server(lambda _: json_answer(next(pages))) as server:
        connector = make(server.url, {"sync": {**sync, "request": request}})
        first = pull(connector)
        assert [b.cursor for b in first] == [None, {"token": "t"}]
        assert first[-1].complete
        (changed, end) = pull(connector, first[-1].cursor)
        assert changed.deletes is not None
        assert changed.deletes.to_pylist() == [{"id": 1}]
        assert "deleted" not in changed.rows.column_names
        assert end.cursor == {"token": "u"}


def test_a_token_may_be_a_whole_address_but_only_of_the_listed_hosts(make: Make) -> None:
    links: list[str] = []
    with Server(lambda _: json_answer({"results": [{"id": 1}], "@link": links[-1]})) as server:
        sync = {"kind": "delta", "seed": "pages", "token": '$["@link"]', "request": {"path": "${token}"}, "expired": [410]}
        connector = make(server.url, {"sync": sync})
        links.append(f"{server.url}/delta?token=a%2Fb")
        first = pull(connector)
        links.append("https://evil.example/delta")
        second = pull(connector, first[-1].cursor)
        assert server.asked[-1].target == "/delta?token=a%2Fb"
        assert second[-1].cursor == {"token": "https://evil.example/delta"}
        with pytest.raises(SourceError, match=r"evil\.example"):
            pull(connector, second[-1].cursor)


@pytest.mark.parametrize("seed", ["pages", {"request": {"path": "/seed"}, "token": "$.start"}, "check:$.start"])
def test_an_answer_without_a_token_is_an_error_that_says_where_it_was_looked_for(make: Make, seed: Any) -> None:
    sync = {"kind": "delta", "seed": seed, "token": "$.token", "request": {"path": "/d", "query": {"t": "${token}"}}, "expired": [410]}
    with (
        Server(lambda _: json_answer({"results": [{"id": 1}]})) as server,
        pytest.raises(SourceError, match=r"token at \$\.(token|start)"),
    ):
        pull(make(server.url, {"sync": sync}, check={"path": "/me"}))


def test_a_cursor_of_another_kind_of_sync_means_a_pull_from_the_start(api: Notes) -> None:
    api.write("a", "first")
    connector = load_manifest(NOTES)(base_url=api.url, auth={"token": TOKEN})
    batches = list(connector.pull(connector.Pull(stream="seeded"), {"value": 5}, None))
    assert ids(batches) == ["a"]
    assert batches[-1].cursor == {"token": "1.1"}


# ---- at many places --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told_apart", [True, False])
def test_each_place_has_its_own_token(api: Notes, tmp_path: Path, told_apart: bool) -> None:
    manifest = yaml.safe_load(NOTES.read_text())
    if not told_apart:
        manifest["streams"]["boxed"]["for_each"]["add"]["all"] = "same"
        manifest["streams"]["boxed"]["types"]["box"] = "json"  # no column that spans could be made of
    path = tmp_path / "notes.yaml"
    path.write_text(yaml.safe_dump(manifest))

    def run(*boxes: str) -> Pulled:
        kind = load_manifest(path)
        pulled = Pulled(NotesProvider(api, "boxed", lambda **given: kind(**given, boxes=list(boxes))), tmp_path)
        pulled.run()
        return pulled

    for name, box in (("a", "red"), ("b", "red"), ("c", "blue")):
        api.write(name, "first", box=box)
    run("red", "blue")
    api.write("a", "second", box="red")
    api.remove("c")
    api.write("d", "first", box="green")
    before = len(api.asked)
    pulled = run("red", "blue", "green")  # one more place: only that one is read in full
    assert sorted(_texts_of(pulled)) == ["a second", "b first", "d first"]
    assert [dict(a.query)["box"] for a in api.asked[before:] if a.path == "/notes"] == ["green"]
    api.expire()
    api.write("b", "second", box="red")
    del api.notes["a"]  # nobody will ever tell of it
    assert sorted(_texts_of(run("red", "blue", "green"))) == ["b second", "d first"]
    assert sorted(_texts_of(run("green", "blue"))) == ["d first"]  # a place that is gone takes its records with it


def _texts_of(pulled: Pulled) -> list[str]:
    return [f"{name.rpartition('/')[2]} {text}" for name, text in texts(pulled).items()]
