"""`muxly destinations`: what destinations declare, and whether one of the project takes records."""

import re
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from muxly_dagster import catalog
from muxly_dagster.assembly import assemble
from muxly_dagster.cli.beginning import variables
from muxly_dagster.destination import Destination
from muxly_dagster.project.load import load_project
from muxly_dagster_tests.cli.command import Muxly, MuxlyHere
from muxly_dagster_tests.cli.conftest import SECRETS, write_project
from muxly_dagster_tests.http.server import Server

_COMMENTED = re.compile(rf"^    # (?=({'|'.join(Destination.model_fields)}):)", re.MULTILINE)

PLUGIN = '''
from typing import ClassVar

from pydantic import Field, SecretStr

from muxly_dagster.destination import Delivery, Destination, Receipt
from muxly_dagster.errors import SignInError
from muxly_dagster.plugins import Plugin
from muxly_dagster.policy import Batching
from muxly_dagster.resource import CheckResult


class Pigeon(Destination):
    """A pigeon that carries messages.

    It flies by day only.
    """

    type: ClassVar[str] = "pigeon"
    title: ClassVar[str] = "Pigeon post"
    guarantee: ClassVar[str] = "at most once"
    templates: ClassVar[tuple[str, ...]] = ("text",)
    example: ClassVar[dict[str, object]] = {"text": "{{ id }} {# and no more #}"}

    home: str = Field(description="Where it lives.")
    whistle: SecretStr = Field(description="What it listens to.")
    text: str = Field("{{ record }}", description="What it carries.")
    batching: Batching = Field(Batching(count=1), description="One letter at a time.")

    def deliver(self, delivery: Delivery) -> Receipt:
        """Let it fly."""
        return Receipt(len(delivery.rows))

    def check(self) -> CheckResult:
        """Whistle."""
        if self.home == "nowhere":
            raise SignInError("the pigeon does not know the whistle", do="whistle another tune")
        return CheckResult("ok", f"whistle for {self.home}")


plugin = Plugin(version="1.0.0", author="Ada", destinations=[Pigeon])
'''

ROOST = """
plugins: [./mine]
sources: {shop: {connector: files, path: ./data, pulls: {orders: {glob: "orders*.csv", key: [id]}}}}
routes:
  same: {from: shop.orders, to: [{post: {text: "{{ record }}"}}, archive]}
  far: {from: shop.orders, to: [{post: {home: rome}}]}
  lost: {from: shop.orders, to: [{lame: {home: nowhere}}]}
  out: {from: shop.orders, to: [{archive: {path: ./muxly.yaml}}]}
destinations:
  post: {type: pigeon, home: paris, whistle: "${SHOP_TOKEN}"}
  lame: {type: pigeon, home: paris, whistle: "${SHOP_TOKEN}"}
  archive: {type: file, path: ./out}
"""


@pytest.fixture
def muxly(tmp_path: Path) -> Muxly:
    """The command in a folder without a project."""
    return MuxlyHere(tmp_path, SECRETS)


@pytest.fixture
def shop(tmp_path: Path, api: Server) -> Muxly:
    """The command in a project with files, a webhook and a database."""
    write_project(tmp_path / "shop")
    return MuxlyHere(tmp_path / "shop", SECRETS | {"API_URL": api.url})


@pytest.fixture
def roost(tmp_path: Path) -> Muxly:
    """The command in a project with a destination of its own, which routes use in different ways."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "mine" / "pigeon.py").write_text(PLUGIN, "utf-8")
    (tmp_path / "muxly.yaml").write_text(ROOST, "utf-8")
    return MuxlyHere(tmp_path, SECRETS)


# ---- what destinations declare ---------------------------------------------------------------------------------------


def test_all_types_are_listed(muxly: Muxly) -> None:
    listed = muxly("destinations", "list", "--json").json
    assert [each["type"] for each in listed] == list(catalog.destination_names())
    for each in listed:
        kind = catalog.destination_class(each["type"])
        assert (each["title"], each["kind"], each["guarantee"], each["bulk"]) == (kind.title, "python", kind.guarantee, kind.bulk)
    lines = muxly("destinations", "list").out.splitlines()
    assert lines[0].split() == ["type", "title", "kind", "guarantee", "whole", "tables", "signs", "in", "with"]
    assert [line.split()[0] for line in lines[1:]] == list(catalog.destination_names())


def test_those_of_plugins_are_listed_and_shown_as_others_are(roost: Muxly) -> None:
    listed = roost("destinations", "list", "--json").json
    assert listed[-1] == {
        "type": "pigeon",
        "title": "Pigeon post",
        "kind": "plugin",
        "guarantee": "at most once",
        "bulk": False,
        "auth": ["whistle"],
    }
    shown = roost("destinations", "show", "pigeon", "--json").json
    assert shown["description"] == "A pigeon that carries messages."
    assert [field["name"] for field in shown["fields"]] == ["home", "whistle", "text"]
    assert shown["templates"] == ["text"]
    assert shown["example"] == {
        "type": "pigeon",
        "home": "${PIGEON_HOME}",
        "whistle": "${PIGEON_WHISTLE}",
        "text": "{{ id }} {# and no more #}",
    }
    shared = {field["name"]: field["default"] for field in shown["shared"]}
    assert (shared["batching.count"], shared["batching.age"]) == (1, ""), "what this one has by default"


@pytest.mark.parametrize("name", catalog.destination_names())
def test_a_destination_shows_what_it_takes_and_then_what_every_destination_takes(name: str, muxly: Muxly) -> None:
    kind = catalog.destination_class(name)
    shown = muxly("destinations", "show", name, "--json").json
    own = {info.alias or field: info for field, info in kind.model_fields.items() if field not in Destination.model_fields}
    told = {field["name"]: field for field in shown["fields"]}
    assert [field for field in told if "." not in field] == list(own)
    assert {field: info.description for field, info in own.items()} == {field: told[field]["description"] for field in own}
    assert [field for field, info in own.items() if info.is_required()] == [f for f in own if told[f]["required"]]
    assert {"on_error", "batching.count", "window.from", "dedupe.within", "guard.deletes", "breaker.pause", "max_lag"} < {
        field["name"] for field in shown["shared"]
    }
    assert (shown["guarantee"], shown["templates"], shown["batch_rows"]) == (kind.guarantee, list(kind.templates), kind.batch_rows)
    words = muxly("destinations", "show", name).out
    for field in [*shown["fields"], *shown["shared"]]:
        assert f"\n{field['name']} " in words and field["description"] in words
    assert kind.guarantee in words
    example = yaml.safe_load(words[words.index("\ndestinations:") :])
    assert example == {"destinations": {name: shown["example"]}}


@pytest.mark.parametrize("name", catalog.destination_names())
def test_what_a_template_prints_loads_once_its_variables_are_set(name: str, muxly: Muxly) -> None:
    done = muxly("destinations", "template", name, "--name", "mine")
    assert done.code == 0
    (muxly.folder / "muxly.yaml").write_text(done.out, "utf-8")
    environ = {variable: a_value(variable, name) for variable in variables(done.out)}
    found = assemble(load_project(muxly.folder / "muxly.yaml", environ)).destinations
    assert [type(each) for each in found.values()] == [catalog.destination_class(name)]
    assert list(found) == ["mine"]


@pytest.mark.parametrize("name", catalog.destination_names())
def test_the_schema_takes_every_template(name: str, muxly: Muxly) -> None:
    project = yaml.safe_load(muxly("destinations", "template", name).out)
    assert [error.message for error in jsonschema.Draft202012Validator(catalog.schema()).iter_errors(project)] == []


@pytest.mark.parametrize("name", catalog.destination_names())
def test_what_every_destination_may_say_can_be_taken_out_of_its_comment(name: str, muxly: Muxly) -> None:
    text = muxly("destinations", "template", name, "--name", "mine").out
    before, shared = text.split("    # What every destination may say:\n")
    (muxly.folder / "muxly.yaml").write_text(before + _COMMENTED.sub("    ", shared), "utf-8")
    environ = {variable: a_value(variable, name) for variable in variables(before)}
    [found] = assemble(load_project(muxly.folder / "muxly.yaml", environ)).destinations.values()
    assert set(Destination.model_fields) <= found.model_fields_set
    assert found.window is not None and found.dedupe is not None


def test_a_template_has_the_name_it_is_asked_for(muxly: Muxly) -> None:
    text = muxly("destinations", "template", "webhook", "--name", "sales").out
    assert text == catalog.destination_class("webhook").config_template("sales")
    assert "${SALES_URL}" in text
    assert list(yaml.safe_load(muxly("destinations", "template", "webhook").out)["destinations"]) == ["webhook"]
    wrong = muxly("destinations", "template", "webhook", "--name", "Our Sales")
    assert (wrong.code, "'Our Sales' is not a name" in wrong.err) == (2, True)


@pytest.mark.parametrize("command", ["show", "template"])
def test_an_unknown_type_is_answered_with_the_nearest(muxly: Muxly, command: str) -> None:
    done = muxly("destinations", command, "webhok")
    assert (done.code, done.out) == (2, "")
    assert "did you mean webhook?" in done.err


def a_value(variable: str, type: str) -> str:
    """A value for a template's variable, of the kind that its name promises."""
    if variable.endswith(("FROM", "TO", "SENDER", "ADDRESS")):
        return "ada@example.com"
    if variable.endswith(("URL", "URLS")):
        return "postgresql://someone:secret@127.0.0.1/somewhere" if type == "database" else "https://example.com/somewhere"
    return "something"


# ---- destinations of a project ---------------------------------------------------------------------------------------


def test_a_destination_is_tried(shop: Muxly) -> None:
    done = shop("destinations", "test", "files")
    assert done.code == 0, done.all
    assert [line.split()[:3] for line in done.out.splitlines()] == [["ok", "destination", "files"]]
    told = shop("destinations", "test", "hook", "--json").json
    assert (told["status"], [(check["name"], check["status"]) for check in told["checks"]]) == ("ok", [("destination hook", "ok")])
    assert not (shop.folder / "out").exists(), "nothing was delivered"


def test_a_destination_that_cannot_be_reached_ends_with_1_and_what_to_do(shop: Muxly) -> None:
    done = shop("destinations", "test", "hook", "--json", API_URL="http://127.0.0.1:1")
    assert (done.code, done.json["status"]) == (1, "failed")
    [check] = done.json["checks"]
    assert check["what"] and check["do"]
    words = shop("destinations", "test", "hook", API_URL="http://127.0.0.1:1")
    assert (words.code, "failed" in words.out, "→" in words.out) == (1, True, True)
    assert not any(secret in text for secret in SECRETS.values() for text in shop.said)


def test_every_route_with_settings_of_its_own_is_tried_too(roost: Muxly) -> None:
    told = roost("destinations", "test", "post", "--json").json
    assert [(check["name"], check["tried"]) for check in told["checks"]] == [
        ("destination post", "whistle for paris"),
        ("delivery far.post", "whistle for rome"),
    ], "the route that says the same is no other way"
    files = roost("destinations", "test", "archive", "--json")
    assert (files.code, {check["name"]: check["status"] for check in files.json["checks"]}) == (
        1,
        {"destination archive": "ok", "delivery out.archive": "failed"},
    )


def test_what_a_check_raises_is_told_as_a_result(roost: Muxly) -> None:
    done = roost("destinations", "test", "lame", "--json")
    assert done.code == 1
    assert done.json["checks"][1] == {
        "name": "delivery lost.lame",
        "status": "failed",
        "tried": "connect",
        "what": "the pigeon does not know the whistle",
        "do": "whistle another tune",
    }


def test_an_unknown_destination_is_answered_with_the_nearest(shop: Muxly, muxly: Muxly) -> None:
    done = shop("destinations", "test", "hok")
    assert (done.code, "did you mean hook?" in done.err) == (2, True)
