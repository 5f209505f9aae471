"""`muxly connectors`: what connectors declare, what a source finds, manifests in the making, and projects begun with a connector."""

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from muxly_dagster import catalog
from muxly_dagster.cli.beginning import project_files, variables
from muxly_dagster.connector import Action, Batch, Connector, Cursor, Metadata, PullSettings, Stream
from muxly_dagster.errors import RetryLater
from muxly_dagster.resource import CheckResult
from muxly_dagster_tests.cli.command import Muxly, MuxlyHere
from muxly_dagster_tests.cli.conftest import MANIFEST, SECRETS, write_project
from muxly_dagster_tests.http.server import Server
from muxly_dagster_tests.test_fragment import a_value

TWO_STREAMS = (
    MANIFEST.replace("check:", "limits: [{requests: 100, window: 10}]\napi_version: {version: '7', sunset: 2031-05-01}\ncheck:")
    + """  others:
    request: {path: /others}
    records: $.data
    types: {at: timestamp}
    description: Whatever else there is.
"""
)


@pytest.fixture
def muxly(tmp_path: Path) -> Muxly:
    """The command in a folder with a manifest and no project."""
    (tmp_path / "api.yaml").write_text(MANIFEST, "utf-8")
    (tmp_path / "two.yaml").write_text(TWO_STREAMS, "utf-8")
    return MuxlyHere(tmp_path, SECRETS)


@pytest.fixture
def shop(tmp_path: Path, api: Server) -> Muxly:
    """The command in a project with three sources, one of which cannot be reached."""
    write_project(tmp_path / "shop")
    return MuxlyHere(tmp_path / "shop", SECRETS | {"API_URL": api.url})


def test_a_manifest_is_a_file_and_never_fetched(muxly: Muxly) -> None:
    for command in (("show",), ("template",), ("try", "-s", "x")):
        done = muxly("connectors", command[0], "https://evil.example.com/api.yaml", *command[1:])
        assert done.code == 2
        assert "a manifest is a file, and this is an address" in done.err and "download it" in done.err


def test_a_file_that_is_no_manifest_is_not_shown(muxly: Muxly) -> None:
    (muxly.folder / ".env").write_text("TOKEN=hunter2-4711\nOTHER=hunter3\n", "utf-8")
    for command in ("validate", "show"):
        done = muxly("connectors", command, "./.env")
        assert done.code == 2 and "a manifest is a map" in done.err and "hunter" not in done.all


def test_what_a_trial_lacks_is_told_as_it_is_said_on_the_command_line(muxly: Muxly) -> None:
    assert "give --set auth.kind=oauth2" in muxly("connectors", "try", "gmail", "-s", "messages").err
    assert "give --set url=" in muxly("connectors", "try", "sql", "-s", "people").err


class Desk(Connector):
    """A desk with notes and secrets."""

    id: ClassVar[str] = "desk"
    title: ClassVar[str] = "A desk"

    def stream(self, pull: PullSettings) -> Stream:
        """Any."""
        return Stream(pull.stream, ("id",))

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: Any) -> Iterator[Batch]:
        """Nothing lies there."""
        yield from ()

    def test_connection(self) -> CheckResult:
        """It is there."""
        return CheckResult("ok", "look at it")

    def metadata(self) -> Metadata:
        """Whose it is."""
        return Metadata("ada", "7", dt.date(2031, 5, 1), ("3 a day",), {"plan": "large"})

    def check_pull(self, pull: PullSettings) -> Sequence[str]:
        """Secrets are nobody's business."""
        return ("secrets may not be read", "not even by you") if pull.stream == "secrets" else ()

    def actions(self) -> Sequence[Action]:
        """Writing and shouting."""
        inputs = {"properties": {"text": {"type": "string"}, "times": {"type": "integer"}}, "required": ["text"]}
        return Action("write", "Write a note", inputs), Action("shout", "Shout", inputs)

    def act(self, action: str, inputs: Mapping[str, Any]) -> Any:
        """Answers with what came."""
        if inputs["text"] == "quiet":
            raise RetryLater("the desk is closed", do="come back tomorrow")
        return inputs["text"].upper() if action == "shout" else {"action": action, **inputs}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Muxly:
    """The command in a project whose source is a desk."""
    monkeypatch.setattr(catalog, "connector_class", lambda name, folder: Desk)
    (tmp_path / "muxly.yaml").write_text("sources: {desk: {connector: desk, pulls: [notes, secrets]}}", "utf-8")
    return MuxlyHere(tmp_path)


# ---- what connectors declare -----------------------------------------------------------------------------------------


def test_all_connectors_are_listed(muxly: Muxly) -> None:
    listed = muxly("connectors", "list", "--json").json
    assert [each["id"] for each in listed] == list(catalog.connector_names())
    assert {"id": "sql", "title": catalog.connector_class("sql").title, "kind": "python", "auth": ["url"], "streams": None} in listed
    lines = muxly("connectors", "list").out.splitlines()
    assert lines[0].split() == ["id", "title", "kind", "signs", "in", "with", "streams"]
    assert len(lines) == 1 + len(listed)


def test_a_connector_shows_its_fields_and_those_of_its_pulls(muxly: Muxly) -> None:
    shown = muxly("connectors", "show", "sql", "--json").json
    fields = {field["name"]: field for field in [*shown["fields"], *shown["pull"]]}
    assert fields["url"] | {"description": ""} == {"name": "url", "type": "secret", "required": True, "default": None, "description": ""}
    assert (fields["batch_rows"]["type"], fields["batch_rows"]["default"]) == ("whole number", 20000)
    assert fields["lookback"]["type"] == "text or whole number"
    assert "freshness" not in fields, "every pull has it"
    words = muxly("connectors", "show", "sql").out
    for field in fields.values():
        assert field["name"] in words and field["description"] in words


def test_a_manifest_shows_its_streams_limits_and_version(muxly: Muxly) -> None:
    shown = muxly("connectors", "show", "./two.yaml", "--json").json
    assert (shown["id"], shown["kind"], shown["auth"]) == ("api", "manifest", ["bearer"])
    assert (shown["limits"], shown["api_version"], shown["sunset"]) == (["100 requests per 10 s"], "7", "2031-05-01")
    [things, others] = shown["streams"]
    assert things == {"name": "things", "key": ["id"], "sync": "full", "deletes": True, "columns": {}, "description": ""}
    assert (others["columns"], others["description"]) == ({"at": "timestamp[us, tz=UTC]"}, "Whatever else there is.")
    words = " ".join(muxly("connectors", "show", "two.yaml").out.split())
    assert "limits 100 requests per 10 s" in words
    assert "ends on 2031-05-01" in words
    assert "things id full yes" in words


def test_a_template_is_printed_under_the_name_it_is_asked_for(muxly: Muxly) -> None:
    text = muxly("connectors", "template", "sql", "--name", "shop").out
    assert text == catalog.connector_class("sql").config_template("shop")
    assert yaml.safe_load(muxly("connectors", "template", "./api.yaml").out)["sources"]["api"]["connector"] == "./api.yaml"
    wrong = muxly("connectors", "template", "sql", "--name", "My Shop")
    assert (wrong.code, "'My Shop' is not a name" in wrong.err) == (2, True)


@pytest.mark.parametrize("command", ["show", "template", "try"])
def test_an_unknown_connector_is_answered_with_the_nearest(muxly: Muxly, command: str) -> None:
    done = muxly("connectors", command, "sqll")
    assert done.code == 2
    assert "did you mean sql?" in done.err
    assert "there is no manifest" in muxly("connectors", command, "nowhere.yaml").err


# ---- manifests in the making -----------------------------------------------------------------------------------------


def test_a_sound_manifest_is_summed_up(muxly: Muxly) -> None:
    done = muxly("connectors", "validate", "two.yaml")
    assert done.code == 0
    assert done.out.splitlines()[0] == "two.yaml: no mistakes found"
    assert "things" in done.out and "others" in done.out
    told = muxly("connectors", "validate", "two.yaml", "--json").json
    assert (told["status"], told["problems"], len(told["streams"])) == ("ok", [], 2)


def test_every_mistake_of_a_manifest_is_told_with_its_place(muxly: Muxly) -> None:
    wrong = MANIFEST.replace("records: $.data", "recrods: $.data").replace("kind: full", "kind: fulll").replace("title: An API\n", "")
    (muxly.folder / "wrong.yaml").write_text(wrong, "utf-8")
    done = muxly("connectors", "validate", "wrong.yaml")
    assert done.code == 2
    assert done.err.splitlines()[0] == "3 problems found"
    assert "wrong.yaml:12:5: streams.things.recrods: a manifest has no such key here; did you mean `records`?" in done.err
    told = muxly("connectors", "validate", "wrong.yaml", "--json")
    assert (told.code, told.json["status"]) == (2, "failed")
    assert sorted(problem["line"] for problem in told.json["problems"]) == [2, 12, 14]
    assert muxly("connectors", "validate", "nowhere.yaml").code == 2


def test_a_stream_is_tried_with_credentials_from_the_environment(muxly: Muxly, api: Server) -> None:
    said = ["--set", f"base_url={api.url}", "--set", "auth.token=${SHOP_TOKEN}"]
    done = muxly("connectors", "try", "api.yaml", *said)
    assert done.code == 0, done.err
    assert [line.split() for line in done.out.splitlines()] == [["id", "name"], ["1", "a"], ["2", "b"]]
    told = muxly("connectors", "try", "api.yaml", *said, "--stream", "things", "--limit", "1", "--json").json
    assert told == {"stream": "things", "rows": [{"id": 1, "name": "a"}], "unreadable": []}
    assert sorted(path.name for path in muxly.folder.iterdir()) == ["api.yaml", "two.yaml"], "nothing was stored"


def test_records_that_cannot_be_read_are_told_with_the_reason(muxly: Muxly, api: Server) -> None:
    (muxly.folder / "typed.yaml").write_text(MANIFEST.replace("key: [id]", "key: [id]\n    types: {name: integer}"), "utf-8")
    said = ["--set", f"base_url={api.url}", "--set", "auth.token=${SHOP_TOKEN}"]
    told = muxly("connectors", "try", "typed.yaml", *said, "--json").json
    assert told["rows"] == []
    assert [json.loads(each["text"])["id"] for each in told["unreadable"]] == [1, 2]
    assert "could not be read: " in muxly("connectors", "try", "typed.yaml", *said).err


def test_a_python_connector_is_tried_with_fields_of_its_pull(muxly: Muxly) -> None:
    (muxly.folder / "orders-1.csv").write_text("id,amount\n1,2.50\n2,3\n", "utf-8")
    said = ["--set", "path=.", "--stream", "orders", "--pull", "glob=orders*.csv", "--pull", 'types={amount: "decimal(9,2)"}']
    assert muxly("connectors", "try", "files", *said, "--json").json["rows"] == [
        {"id": "1", "amount": "2.50"},
        {"id": "2", "amount": "3.00"},
    ]


def test_a_secret_in_the_command_itself_is_refused_and_not_repeated(muxly: Muxly) -> None:
    done = muxly("connectors", "try", "api.yaml", "--set", f"auth.token={SECRETS['SHOP_TOKEN']}")
    assert done.code == 2
    assert "auth.token: is a secret" in done.err
    assert "--set auth.token='${NAME}'" in done.err
    muxly("connectors", "try", "api.yaml", "--set", SECRETS["SHOP_TOKEN"])
    muxly("connectors", "try", "api.yaml", "--set", "auth.token=${SHOP_TOKEN}", "--set", "base_url=http://127.0.0.1:1")
    assert not any(secret in text for secret in SECRETS.values() for text in muxly.said)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["two.yaml", "--set", "auth.token=${SHOP_TOKEN}"], "give --stream: things, others"),
        (["two.yaml", "-s", "thigns", "--set", "auth.token=${SHOP_TOKEN}"], "did you mean `things`?"),
        (["api.yaml", "--set", "auth.token=${SHOP_TOKNE}"], "needs the environment variable SHOP_TOKNE"),
        (["api.yaml", "--set", "auth.token=${SHOP_TOKEN}", "--set", "base_ulr=x"], "did you mean base_url?"),
        (["api.yaml", "--set", "auth=x", "--set", "auth.token=y"], "goes below a value that is no map"),
        (["api.yaml"], "auth: is missing"),
        (["api.yaml", "--set", "auth.token"], "is not written NAME=VALUE"),
    ],
)
def test_what_is_wrong_with_a_try_is_told(muxly: Muxly, arguments: list[str], told: str) -> None:
    done = muxly("connectors", "try", *arguments)
    assert done.code == 2
    assert told in done.err


# ---- sources of a project --------------------------------------------------------------------------------------------


def test_a_source_is_tested_with_its_pulls(shop: Muxly) -> None:
    done = shop("connectors", "test", "api")
    assert done.code == 0, done.all
    assert [line.split()[:3] for line in done.out.splitlines()[:2]] == [["ok", "source", "api"], ["ok", "pull", "api.things"]]
    told = shop("connectors", "test", "shop", "--json").json
    assert [(check["name"], check["status"]) for check in told["checks"]] == [("source shop", "ok"), ("pull shop.orders", "ok")]
    assert set(told["metadata"]) == {"account", "api_version", "sunset", "limits", "details"}


def test_a_source_that_fails_ends_with_1_and_its_pulls_are_not_asked_about(shop: Muxly) -> None:
    done = shop("connectors", "test", "broken", "--json")
    assert (done.code, done.json["status"]) == (1, "failed")
    [check] = done.json["checks"]
    assert (check["name"], bool(check["what"]), bool(check["do"])) == ("source broken", True, True)
    refused = shop("connectors", "test", "api", SHOP_TOKEN="another-token-0000")
    assert refused.code == 1
    assert "→" in refused.out
    assert "another-token-0000" not in refused.all


def test_what_the_provider_finds_wrong_with_a_pull_is_told(desk: Muxly) -> None:
    done = desk("connectors", "test", "desk")
    assert done.code == 1
    assert [line.split()[:3] for line in done.out.splitlines() if "desk" in line][:3] == [
        ["ok", "source", "desk"],
        ["ok", "pull", "desk.notes"],
        ["failed", "pull", "desk.secrets"],
    ]
    assert "secrets may not be read; not even by you" in done.out
    words = " ".join(done.out.split())
    assert "account ada API version 7 ends on 2031-05-01 limits 3 a day plan large" in words

    checked = desk("check", "--json")
    assert (checked.code, checked.json["status"]) == (1, "failed")
    assert {each["name"]: each["status"] for each in checked.json["connections"]} == {
        "source desk": "ok",
        "pull desk.notes": "ok",
        "pull desk.secrets": "failed",
    }
    assert "failed  pull desk.secrets" in desk("check").out
    assert desk("check", "--offline").code == 0


def test_an_action_is_done_with_its_inputs(desk: Muxly) -> None:
    said = desk("connectors", "act", "desk", "write", "text=007", "times=2", "tags=[a, b]")
    assert said.json == {"action": "write", "text": "007", "times": 2, "tags": ["a", "b"]}
    document = desk("connectors", "act", "desk", "write", "--input", '{"text": "x", "times": 1}', "times=3")
    assert document.json == {"action": "write", "text": "x", "times": 3}
    assert desk("connectors", "act", "desk", "shout", "text=hello").out == "HELLO\n"
    assert desk("connectors", "act", "desk", "shout", "text=hello", "--json").json == "HELLO"


def test_the_actions_of_a_source_are_listed(desk: Muxly) -> None:
    lines = desk("connectors", "act", "desk").out.splitlines()
    assert lines[1].split() == ["write", "Write", "a", "note", "text,", "[times]"]
    assert [each["name"] for each in desk("connectors", "act", "desk", "--json").json] == ["write", "shout"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["wriet"], 2, "did you mean write?"),
        (["write", "text"], 2, "is not written NAME=VALUE"),
        (["write", "--input", "{"], 2, "--input is not JSON"),
        (["write", "--input", "[]"], 2, "--input is no JSON object"),
        (["shout", "text=quiet"], 1, "the desk is closed"),
    ],
)
def test_what_is_wrong_with_an_action_is_told(desk: Muxly, arguments: list[str], code: int, told: str) -> None:
    done = desk("connectors", "act", "desk", *arguments)
    assert done.code == code
    assert told in done.err


def test_the_streams_of_a_source_are_found(shop: Muxly) -> None:
    assert [each["name"] for each in shop("connectors", "streams", "shop", "--json").json] == ["orders"]
    [things] = shop("connectors", "streams", "api", "--json").json
    assert (things["name"], things["key"], things["sync"]) == ("things", ["id"], "full")
    assert shop("connectors", "streams", "api").out.splitlines()[1].split() == ["things", "id", "full", "yes"]
    unknown = shop("connectors", "streams", "shpo")
    assert (unknown.code, "did you mean shop?" in unknown.err) == (2, True)


# ---- projects begun with a connector ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", catalog.connector_names())
def test_a_project_begun_with_any_connector_loads_once_its_variables_are_set(name: str, tmp_path: Path) -> None:
    from muxly_dagster.assembly import load_assembly

    files = project_files(name)
    for file, text in files.items():
        (tmp_path / file).write_text(text, "utf-8")
    needs = variables(files["muxly.yaml"])
    listed = [line[:-1] for line in files.get(".env.example", "").splitlines() if line.endswith("=")]
    assert listed == list(needs)

    assembly = load_assembly(tmp_path / "muxly.yaml", {variable: a_value(variable, name) for variable in needs})

    assert [target.table for target in assembly.targets.values()] == list(assembly.pulls)
    assert assembly.jobs["everything"].cron == "@daily"
    assert ".env" in files[".gitignore"].splitlines()


def test_the_schema_takes_every_project_that_is_begun_with_a_connector() -> None:
    validator = jsonschema.Draft202012Validator(catalog.schema())
    for name in catalog.connector_names():
        project = yaml.safe_load(project_files(name)["muxly.yaml"])
        assert [error.message for error in validator.iter_errors(project)] == []


def test_init_takes_a_connector_and_lists_its_variables(muxly: Muxly) -> None:
    begun = muxly("init", "new", "--template", "hubspot")
    assert begun.code == 0, begun.err
    assert begun.err.splitlines()[-1] == "next: cd new; set HUBSPOT_TOKEN; muxly check; muxly run everything"
    assert sorted(path.name for path in (muxly.folder / "new").iterdir()) == [".env.example", ".gitignore", ".muxly", "muxly.yaml"]
    assert muxly("check", "--offline", folder=muxly.folder / "new", HUBSPOT_TOKEN="something").code == 0
    assert "did you mean hubspot?" in muxly("init", "newer", "--template", "hubspto").err
