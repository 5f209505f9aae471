"""What a project may say of a collector: schemas inline and in files, each mistake with its place; one pull for each stream."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from muxly_dagster.assembly import Assembly, load_assembly
from muxly_dagster.cli import opening
from muxly_dagster.cli.beginning import project_files
from muxly_dagster.collecting import Lines
from muxly_dagster.connectors.collector import Collector, CollectorPull
from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.state import State
from muxly_dagster.state.posts import Part, Post

SCHEMA = {"type": "object", "required": ["email"], "properties": {"email": {"type": "string"}, "age": {"minimum": 0}}}


def load(folder: Path, text: str) -> Assembly:
    (folder / "muxly.yaml").write_text(text)
    return load_assembly(folder / "muxly.yaml", {})


def problems(folder: Path, text: str) -> list[Problem]:
    with pytest.raises(ConfigurationError) as caught:
        load(folder, text)
    return caught.value.problems


def schema_of(assembly: Assembly, pull: str = "app.signups") -> dict[str, Any] | None:
    settings = assembly.pulls[pull].settings
    assert isinstance(settings, CollectorPull)
    return settings.json_schema


def with_schema(said: str) -> str:
    return f"sources:\n  app:\n    connector: collector\n    pulls:\n      signups:\n        json_schema: {said}\n"


def test_the_least_that_can_be_said(tmp_path: Path) -> None:
    assembly = load(tmp_path, "sources:\n  app: {connector: collector, pulls: [signups]}\n")
    pull = assembly.pulls["app.signups"]
    assert isinstance(pull.connector, Collector) and pull.connector.automatic
    assert isinstance(pull.settings, CollectorPull)
    assert (pull.settings.stream, pull.settings.id, pull.settings.json_schema, pull.stream.key) == ("signups", "id", None, ())


def test_a_schema_may_stand_in_the_project_or_in_a_file_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert schema_of(load(tmp_path, with_schema(orjson.dumps(SCHEMA).decode()))) == SCHEMA
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "signup.json").write_bytes(orjson.dumps(SCHEMA))
    (tmp_path / "schemas" / "signup.yaml").write_text("type: object\nrequired: [email]\n")
    monkeypatch.chdir("/")
    assert schema_of(load(tmp_path, with_schema("schemas/signup.json"))) == SCHEMA
    assert schema_of(load(tmp_path, with_schema("./schemas/signup.yaml"))) == {"type": "object", "required": ["email"]}


@pytest.mark.parametrize(
    ("said", "line", "what"),
    [
        ("{properties: {email: {type: text}}}", 6, '"text" is not valid'),
        ("\n          required: [email]\n          properties:\n            age: {minimum: none}", 9, '"none" is not of type'),
        ('{properties: {email: {pattern: "("}}}', 6, "regex"),
        ('{$ref: "https://example.com/schema.json"}', 6, "https://example.com/schema.json"),
        ('{$ref: "#/definitions/none"}', 6, "does not exist"),
        ("7", 6, "must be a map of names to values"),
    ],
)
def test_a_mistake_in_the_project_is_told_with_its_line(tmp_path: Path, said: str, line: int, what: str) -> None:
    [problem] = problems(tmp_path, with_schema(said))
    assert (problem.file.endswith("muxly.yaml"), problem.line) == (True, line)
    assert problem.path.startswith("sources.app.pulls.signups.json_schema") and what in problem.what


def test_a_mistake_in_a_file_is_told_with_the_file_and_its_line(tmp_path: Path) -> None:
    (tmp_path / "signup.json").write_text('{\n  "type": "object",\n  "properties": {\n    "age": {"minimum": "none"}\n  }\n}\n')
    [wrong] = problems(tmp_path, with_schema("signup.json"))
    assert (Path(wrong.file).name, wrong.line) == ("signup.json", 4) and "is no JSON Schema" in wrong.what
    (tmp_path / "signup.json").write_text('{\n  "type": \n}')
    [broken] = problems(tmp_path, with_schema("signup.json"))
    assert Path(broken.file).name == "signup.json" and broken.line >= 2
    [missing] = problems(tmp_path, with_schema("nowhere.json"))
    assert missing.file.endswith("nowhere.json") and "cannot be read" in missing.what


def test_a_stream_that_empties_has_one_pull(tmp_path: Path) -> None:
    [problem] = problems(
        tmp_path, "sources:\n  app:\n    connector: collector\n    pulls:\n      one: {stream: signups}\n      signups: {}\n"
    )
    assert (problem.line, problem.what) == (6, "reads the stream signups, as app.one does")
    two = "sources:\n  app: {connector: collector, pulls: [signups]}\n  web: {connector: collector, pulls: [signups]}\n"
    assert list(load(tmp_path, two).pulls) == ["app.signups", "web.signups"]


def test_the_project_that_init_writes_loads(tmp_path: Path) -> None:
    for name, text in project_files("collector").items():
        (tmp_path / name).write_text(text)
    assembly = load_assembly(tmp_path / "muxly.yaml", {})
    assert list(assembly.pulls) == ["collector.signups"] and list(assembly.targets) == ["signups_out.archive"]


def test_commands_that_try_a_source_see_what_waits_in_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assembly = load(tmp_path, "sources:\n  app: {connector: collector, pulls: [signups]}\n")
    for name, value in {"MUXLY_PROJECT": tmp_path / "muxly.yaml", "MUXLY_HOME": tmp_path / "home"}.items():
        monkeypatch.setenv(name, str(value))
    chosen = opening.settings()
    state = State.open(chosen.database_url, chosen.home)
    state.inbox.put([Post("app", [Part("signups", Lines([b"{}"]), ["one"])])])
    state.close()
    assert assembly.sources["app"].test_connection().what == "0 events wait", "nobody has lent it an inbox yet"
    with opening.state_of(assembly) as open_project:
        assert open_project.sources["app"].test_connection().what == "1 event waits (signups 1)"
