"""Pieces of muxly.yaml made from models: what is required is said, the rest stands in comments, and every connector's template loads."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from muxly_dagster import catalog, fragment
from muxly_dagster.assembly import assemble
from muxly_dagster.auth import ApiKey, Bearer, NoAuth, OAuth2
from muxly_dagster.project.load import load_project

_COMMENTED = re.compile(r"^(\s*)# (?=\w+:( |$))")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def a_value(variable: str, connector: str) -> str:
    """A value for an environment variable, of the kind that its name promises."""
    if variable.endswith("URL"):
        return "postgresql://someone:secret@127.0.0.1/somewhere" if connector == "sql" else "https://example.com/somewhere"
    return "something"


class Window(BaseModel):
    """A part of the day."""

    model_config = ConfigDict(extra="forbid")

    begins: str = Field("08:00", description="When it begins.")
    ends: str = Field("18:00", description="When it ends.")


class Office(BaseModel):
    """A model with a field of every kind."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    token: SecretStr = Field(description="What signs in.")
    account: int = Field(description="The account's number.")
    region: Literal["eu", "us"] = Field(description="Where it lies.")
    rooms: list[str] = Field(description="Which rooms there are.")
    size: int = Field(20, description="How many may be there.")
    from_: str = Field("here", alias="from", description="Where one comes from.")
    spare: SecretStr | None = Field(None, description="Another thing that signs in.")
    note: str | None = Field(None, description="Whatever else there is to say. " * 5)
    open: Window = Field(Window(), description="When it is open.")
    labels: dict[str, str] = Field({}, description="More words.")


class Door(BaseModel):
    """A model with two ways to sign in, and one that is needless."""

    auth: Annotated[OAuth2 | Bearer | ApiKey, Field(discriminator="kind")] = Field(description="How to sign in.")
    side: Annotated[NoAuth | Bearer, Field(discriminator="kind")] = Field(NoAuth(), description="How to sign in beside it.")
    name: str = Field(description="What it is called.")


def lines(model: type[BaseModel], **options: Any) -> list[str]:
    return fragment.model_lines(model, variables="crm", **options)


def said(model: type[BaseModel], **options: Any) -> Any:
    return yaml.safe_load("\n".join(lines(model, **options)))


def test_what_is_required_is_said_and_nothing_else() -> None:
    assert said(Office) == {"token": "${CRM_TOKEN}", "account": "${CRM_ACCOUNT}", "region": "eu", "rooms": ["${CRM_ROOMS}"]}


def test_above_every_setting_stands_what_it_means() -> None:
    text = lines(Office)
    assert text[text.index('token: "${CRM_TOKEN}"') - 1] == "# What signs in."
    assert text[text.index("# size: 20") - 1] == "# How many may be there."
    assert max(map(len, text)) <= 110


def test_the_comments_taken_away_every_setting_is_there_with_its_default() -> None:
    whole = yaml.safe_load("\n".join(_COMMENTED.sub(r"\1", line) for line in lines(Office)))
    assert list(whole) == [info.alias or name for name, info in Office.model_fields.items()]
    assert whole["spare"] == "${CRM_SPARE}"
    office = Office.model_validate(whole | {"account": 1, "spare": None})
    assert office == Office(token=SecretStr("${CRM_TOKEN}"), account=1, region="eu", rooms=["${CRM_ROOMS}"])


def test_examples_are_shown_in_place_of_defaults_and_variables() -> None:
    shown = {"account": 4711, "size": 5, "labels": {"floor": "second"}, "rooms": [f"a room with a long name {n}" for n in range(9)]}
    assert {"token": "${CRM_TOKEN}", "region": "eu"} | shown == said(Office, shown=shown)
    assert "# size: 20" not in lines(Office, shown=shown)


def test_fields_can_be_left_to_somebody_else() -> None:
    assert not any("token" in line for line in lines(Office, without=["token"]))


def test_of_several_ways_the_first_is_written_and_the_others_stand_in_comments() -> None:
    text = "\n".join(lines(Door))
    assert said(Door) == {
        "name": "${CRM_NAME}",
        "auth": {
            "kind": "oauth2",
            "client_id": "${CRM_CLIENT_ID}",
            "client_secret": "${CRM_CLIENT_SECRET}",
            "refresh_token": "${CRM_REFRESH_TOKEN}",
        },
    }
    assert '# auth:\n#   kind: bearer\n#   token: "${CRM_TOKEN}"\n' in text
    assert '# auth:\n#   kind: api_key\n#   key: "${CRM_KEY}"\n' in text
    assert "#   kind: none" not in text
    assert '# side:\n#   kind: bearer\n#   token: "${CRM_TOKEN}"' in text


def test_an_example_chooses_another_way() -> None:
    assert said(Door, shown={"auth": {"kind": "api_key", "name": "X-Key"}, "name": "front"}) == {
        "name": "front",
        "auth": {"kind": "api_key", "key": "${CRM_KEY}", "name": "X-Key"},
    }


@pytest.mark.parametrize(
    "value", ["", "a: b", "${NAME}", "# no comment", True, 3, 2.5, [], {}, ["a", {"b": [1, "x, y"]}], "é", "2024-01-01"]
)
def test_a_value_on_one_line_is_read_as_the_same_value(value: Any) -> None:
    [line] = fragment.setting("name", value)
    assert yaml.safe_load(line) == {"name": value}


@pytest.mark.parametrize("name", catalog.connector_names())
def test_every_connectors_template_loads_once_its_variables_are_set(name: str, tmp_path: Path) -> None:
    kind = catalog.connector_class(name)
    template = kind.config_template("mine")
    (tmp_path / "muxly.yaml").write_text(template, "utf-8")
    environ: Mapping[str, str] = {variable: a_value(variable, name) for variable in _VARIABLE.findall(template)}

    assembly = assemble(load_project(tmp_path / "muxly.yaml", environ))

    assert list(assembly.sources) == ["mine"]
    assert assembly.pulls, "a template begins with some pulls: give the connector an `example` or a declaration with streams"
    assert all(line == line.rstrip() for line in template.splitlines())


@pytest.mark.parametrize("name", catalog.connector_names())
def test_every_field_of_a_connector_is_in_its_template_with_its_meaning(name: str) -> None:
    kind = catalog.connector_class(name)
    words = " ".join(re.sub(r"^\s*#", "", line) for line in kind.config_template("mine").splitlines())
    for field, info in kind.model_fields.items():
        assert f"{info.alias or field}:" in words
        assert info.description, f"{name}.{field} has no description"
        assert " ".join(info.description.split()) in " ".join(words.split())


def test_a_manifests_template_names_its_path_and_its_streams(tmp_path: Path) -> None:
    described = {"hosts": ["example.com"], "base_url": "https://example.com", "auth": ["bearer"], "version": "1", "title": "Shop"}
    streams = {f"stream_{n}": {"request": {"path": f"/{n}"}, "description": f"The number {n}."} for n in range(10)}
    manifest = tmp_path / "shop.yaml"
    manifest.write_text(yaml.safe_dump({"muxly": 1, "id": "shop", **described, "streams": streams}), "utf-8")

    template = catalog.connector_class(str(manifest)).config_template("store", "./shop.yaml")

    source = yaml.safe_load(template)["sources"]["store"]
    assert source == {
        "connector": "./shop.yaml",
        "auth": {"kind": "bearer", "token": "${STORE_TOKEN}"},
        "pulls": {f"stream_{n}": {} for n in range(8)},
    }
    assert "# The number 3.\n      stream_3: {}" in template
    assert "# There are also stream_8, stream_9." in template
