"""Mistakes in a manifest: all at once, each with its place, what is wrong and what to do."""

import logging
from pathlib import Path

import pytest

from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.manifest.connector import load_manifest

HEAD = """\
muxly: 1
id: shop
version: 1.0.0
title: Shop
hosts: [api.shop.example]
base_url: https://api.shop.example/v1
"""
STREAMS = """\
streams:
  things:
    request: {path: /things}
    records: $.results
    key: [id]
"""


def problems(tmp_path: Path, text: str) -> list[Problem]:
    path = tmp_path / "shop.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_manifest(path)
    assert all(p.file == str(path) for p in caught.value.problems)
    return caught.value.problems


def only(tmp_path: Path, text: str) -> tuple[str, int, int, str]:
    """Path, line, column and text of the one problem."""
    (problem,) = problems(tmp_path, text)
    return problem.path, problem.line, problem.column, f"{problem.what}; {problem.do}"


def test_a_good_manifest_loads(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(HEAD + STREAMS)
    assert load_manifest(tmp_path / "shop.yaml").id == "shop"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.yaml:1:1: cannot be read"):
        load_manifest(tmp_path / "nothing.yaml")


def test_broken_yaml_says_where(tmp_path: Path) -> None:
    path, line, column, text = only(tmp_path, HEAD + "streams: {things: [\n")
    assert (path, line) == ("", 8)
    assert "no YAML" in text
    assert column >= 1


def test_an_empty_file_a_list_and_a_self_containing_alias_are_mistakes(tmp_path: Path) -> None:
    assert "empty" in only(tmp_path, "")[3]
    assert problems(tmp_path, "- a\n")
    assert "alias" in only(tmp_path, "a: &a\n  b: *a\n")[3]


def test_a_key_that_stands_twice_names_both_places(tmp_path: Path) -> None:
    path, line, _, text = only(tmp_path, HEAD + "id: other\n" + STREAMS)
    assert (path, line) == ("id", 7)
    assert "first in line 2" in text


def test_unknown_keys_are_refused_with_a_guess(tmp_path: Path) -> None:
    path, line, column, text = only(tmp_path, HEAD + STREAMS + "    recrods: $.x\n")
    assert (path, line, column) == ("streams.things.recrods", 12, 5)
    assert "did you mean `records`" in text


def test_an_unknown_kind_lists_the_known_ones(tmp_path: Path) -> None:
    path, line, _, text = only(tmp_path, HEAD + STREAMS + "    paging:\n      kind: magic\n")
    assert (path, line) == ("streams.things.paging", 12)
    assert "'magic'" in text
    assert "'cursor'" in text


def test_a_mistake_within_a_union_is_placed_at_its_own_key(tmp_path: Path) -> None:
    found = problems(tmp_path, HEAD + STREAMS + "    paging:\n      kind: cursor\n      next: $.[\n      into: header.x\n")
    assert [(p.path, p.line) for p in found] == [("streams.things.paging.next", 14), ("streams.things.paging.into", 15)]


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, HEAD.replace("muxly: 1", "muxly: 2").replace("title: Shop\n", "") + STREAMS + "    types: {a: datetime}\n")
    assert [p.path for p in found] == ["muxly", "title", "streams.things.types"]
    assert "is missing" in found[1].what
    assert "there are string, integer" in found[2].what


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        (
            HEAD + STREAMS.replace("/things}", '"/things/${config.nothing}"}'),
            "streams.things.request.path",
            "nothing is called ${config.nothing}",
        ),
        (
            HEAD + STREAMS.replace("/things}", '/things, query: {a: "${cursor}"}}'),
            "streams.things.request.query.a",
            "nothing is called ${cursor}",
        ),
        (
            HEAD + STREAMS.replace("/things}", '"/${api_version|bold}"}') + "api_version: 1.0.0\n",
            "streams.things.request.path",
            "no filter `bold`",
        ),
        (HEAD + STREAMS.replace("/things}", '"/${1+1}"}'), "streams.things.request.path", "is no expression"),
        (HEAD.replace("https", "http") + STREAMS, "base_url", "in the clear"),
        (HEAD.replace("hosts: [api.", "hosts: [www.") + STREAMS, "base_url", "not among `hosts`"),
        (HEAD + STREAMS.replace("/things}", "https://evil.example/x}"), "streams.things.request.path", "evil.example is not among `hosts`"),
        (HEAD + "config: {auth: {type: string}}\n" + STREAMS, "config.auth", "name is taken"),
        (HEAD + "config: {access_token: {type: string}}\n" + STREAMS, "config.access_token", "looks like a secret"),
        (HEAD + "config: {n: {type: integer, secret: true}}\n" + STREAMS, "config.n", "only a string can be secret"),
        (HEAD + "errors: [{status: 400, when: maybe, do: skip}]\n" + STREAMS, "errors.0.when", "is no condition"),
        (HEAD + "errors: [{status: 400, do: retry, wait: later}]\n" + STREAMS, "errors.0.wait", "is no wait"),
        (HEAD + "limits: [{requests: 5}]\n" + STREAMS, "limits.0", "go together"),
        (HEAD + STREAMS + "    sync: {kind: cursor, field: at, lag: soon}\n", "streams.things.sync.lag", "is no duration"),
        (HEAD + STREAMS + "    sync: {kind: cursor, field: at, lag: 1h}\n", "streams.things.sync.field", "not known to be one"),
    ],
)
def test_what_cannot_work_is_told_with_its_place(tmp_path: Path, text: str, where: str, says: str) -> None:
    path, line, column, told = only(tmp_path, text)
    assert path == where
    assert says in told
    assert text.splitlines()[line - 1][column - 1 :].strip()


def test_slices_need_a_beginning_and_a_place_in_the_request(tmp_path: Path) -> None:
    found = problems(tmp_path, HEAD + STREAMS + "    types: {at: timestamp}\n    sync: {kind: cursor, field: at, window: 30d}\n")
    assert [p.what for p in found] == ["the request does not place ${window.start} and ${window.end}", "slices need a beginning"]


def test_http_is_allowed_on_this_machine(tmp_path: Path) -> None:
    text = HEAD.replace("https://api.shop.example", "http://127.0.0.1:8080").replace("api.shop.example", "127.0.0.1")
    (tmp_path / "shop.yaml").write_text(text + STREAMS)
    load_manifest(tmp_path / "shop.yaml")


def test_a_cursor_sync_without_bounds_in_its_request_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "shop.yaml").write_text(HEAD + STREAMS + "    sync: {kind: cursor, field: at}\n")
    with caplog.at_level(logging.WARNING, "muxly.manifest"):
        load_manifest(tmp_path / "shop.yaml")
    assert "everything is read each time" in caplog.text


def test_a_cursor_sync_without_a_key_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = STREAMS.replace("    key: [id]\n", "").replace("/things}", '/things, query: {a: "${cursor}"}}')
    (tmp_path / "shop.yaml").write_text(HEAD + text + "    sync: {kind: cursor, field: at}\n")
    with caplog.at_level(logging.WARNING, "muxly.manifest"):
        load_manifest(tmp_path / "shop.yaml")
    assert "a cursor but no key" in caplog.text
