"""A manifest that stands in a source: a REST API of one's own without another file, its mistakes told where they stand."""

import textwrap
from pathlib import Path

import pytest

from muxly_dagster.assembly import Assembly, load_assembly
from muxly_dagster.errors import ConfigurationError
from muxly_dagster_tests.http.server import Asked, Server, json_answer
from muxly_dagster_tests.project.shelf import write

DESK = """
sources:
  desk:
    connector:
      base_url: ${DESK_URL:-https://desk.example.com}
      hosts: [desk.example.com, 127.0.0.1]
      auth: [bearer]
      config: {region: {type: string, default: eu}}
      check: {path: /me}
      streams:
        tickets:
          request: {path: "/${config.region}/tickets", query: {since: "${cursor|iso}"}}
          records: $.tickets
          key: [id]
          types: {at: timestamp}
          sync: {kind: cursor, field: at}
    region: us
    auth: {kind: bearer, token: "${DESK_TOKEN}"}
    pulls: [tickets]
"""


def assembled(folder: Path, text: str, **environ: str) -> Assembly:
    return load_assembly(write(folder, text=text), {"DESK_TOKEN": "t0ken"} | environ)


def mistakes(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        assembled(folder, text, **environ)
    return [str(problem).removeprefix(f"{folder}/") for problem in caught.value.problems]


def test_it_is_a_connector_named_like_its_source(tmp_path: Path) -> None:
    assembly = assembled(tmp_path, DESK)
    desk = assembly.sources["desk"]
    assert (desk.id, desk.title) == ("desk", "desk")
    stream = assembly.pulls["desk.tickets"].stream
    assert (stream.key, stream.sync) == (("id",), "cursor")


def test_its_expressions_are_its_own_and_names_in_capitals_are_the_environments(tmp_path: Path) -> None:
    def reply(asked: Asked) -> bytes:
        return json_answer({"tickets": [{"id": 1, "at": "2026-01-01T00:00:00Z"}]})

    with Server(reply) as server:
        pull = assembled(tmp_path, DESK, DESK_URL=server.url).pulls["desk.tickets"]
        [batch, *_] = [each for each in pull.connector.pull(pull.settings, None, None) if len(each.rows)]
    assert server.asked[0].path == "/us/tickets"
    assert server.asked[0].headers["authorization"] == "Bearer t0ken"
    assert batch.rows["id"].to_pylist() == [1]


def test_a_short_one_needs_neither_hosts_nor_a_version(tmp_path: Path) -> None:
    text = """
    sources:
      desk:
        connector: {base_url: "http://127.0.0.1:1/api", streams: {tickets: {request: {path: /tickets}, key: [id]}}}
        pulls: [tickets]
    """
    assert assembled(tmp_path, text).sources["desk"].manifest.hosts == ["127.0.0.1"]  # type: ignore[attr-defined]


def test_its_mistakes_are_told_where_they_stand(tmp_path: Path) -> None:
    found = mistakes(tmp_path, DESK.replace("request:", "reqest:").replace("key: [id]", "key: id"))
    assert (
        "muxly.yaml:11:11: sources.desk.connector.streams.tickets.reqest: a manifest has no such key here; did you mean `request`?" in found
    )
    assert any(each.startswith("muxly.yaml:13:16: sources.desk.connector.streams.tickets.key: ") for each in found)
    [unknown] = mistakes(tmp_path, DESK.replace("${config.region}", "${config.regoin}"))
    assert unknown.startswith("muxly.yaml:11:") and "regoin" in unknown
    [missing] = mistakes(tmp_path, DESK.replace("${DESK_URL:-https://desk.example.com}", "${DESK_URL}"))
    assert "needs the environment variable DESK_URL" in missing


def test_a_wrong_pull_or_field_is_told_as_with_any_connector(tmp_path: Path) -> None:
    [field] = mistakes(tmp_path, DESK.replace("region: us", "regoin: us"))
    assert "sources.desk.regoin" in field and "did you mean region?" in field
    [stream] = mistakes(tmp_path, DESK.replace("pulls: [tickets]", "pulls: [tickts]"))
    assert "sources.desk.pulls.tickts" in stream and "did you mean `tickets`?" in stream


def test_it_may_be_written_in_json_or_come_from_the_environment(tmp_path: Path) -> None:
    manifest = '{"base_url": "http://127.0.0.1:1", "streams": {"tickets": {"request": {"path": "/${config.x}"}, "key": ["id"]}}}'
    text = '{"sources": {"desk": {"connector": %s, "pulls": ["tickets"]}}}'
    path = tmp_path / "muxly.json"
    path.write_text(text % manifest, "utf-8")
    with pytest.raises(ConfigurationError, match="muxly.json:1:"):
        load_assembly(path, {})
    path.write_text(text % manifest.replace("/${config.x}", "/tickets"), "utf-8")
    assert list(load_assembly(path, {}).pulls) == ["desk.tickets"]
    path.write_text(text % '"sql"', "utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_assembly(path, {"MUXLY__SOURCES__DESK__CONNECTOR": manifest})
    [problem] = caught.value.problems
    assert problem.path.startswith("sources.desk.connector.streams.tickets")


def test_a_connector_is_a_name_or_a_manifest_and_nothing_else(tmp_path: Path) -> None:
    [told] = mistakes(
        tmp_path,
        textwrap.dedent("""
        sources: {desk: {connector: [1]}}
    """),
    )
    assert told.startswith("muxly.yaml:1:29: sources.desk.connector: must be") or "sources.desk.connector: must be" in told
