"""Airbyte's manifests: the connectors' promises kept by airbyte-cdk itself, and whose code may run."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from muxly_dagster.connectors import airbyte
from muxly_dagster.connectors.airbyte import Airbyte
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.testing import ConnectorContract
from muxly_dagster.testing.connectors import Pulled
from muxly_dagster_tests.peers.tickets import AIRBYTE, HOW, AirbyteDesk, desk_manifest

needs_cdk = pytest.mark.skipif(not AIRBYTE.exists(), reason=f"airbyte-cdk is not there: {HOW}")


@needs_cdk
class TestManifest(ConnectorContract):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Iterator[AirbyteDesk]:
        with AirbyteDesk(tmp_path) as desk:
            yield desk


def connector(folder: Path, document: Any = None, **fields: Any) -> Airbyte:
    path = folder / "desk.yaml"
    path.write_text(yaml.safe_dump(desk_manifest() if document is None else document), "utf-8")
    given = {"manifest": str(path), "config": {"base_url": "http://127.0.0.1:1"}, "secrets": {"credentials.token": "t0ken-of-mine"}}
    return Airbyte.model_validate(given | fields)


def refused(source: Airbyte) -> str:
    pull = source.Pull(stream="tickets")
    with pytest.raises(ConfigurationError) as caught:
        list(source.pull(pull, None, None))
    assert "t0ken" not in str(caught.value)
    return str(caught.value)


# ---- state ---------------------------------------------------------------------------------------------------------------


@needs_cdk
def test_an_incremental_stream_goes_on_from_its_state_in_muxlys_cursor(tmp_path: Path) -> None:
    with AirbyteDesk(tmp_path, incremental=True) as desk:
        desk.put(1, 2, 3, 4, text="first")
        pulled = Pulled(desk, tmp_path)
        assert pulled.run().changed == 4
        desk.put(2, 5, text="second")
        asked = len(desk.asked)
        assert pulled.run().changed == 2
        news = [dict(each.query).get("since") for each in desk.asked[asked:]]
        assert news and set(news) == {"2026-03-01T00:00:04Z"}
        assert pulled.texts() == {1: "first", 2: "second", 3: "first", 4: "first", 5: "second"}


@needs_cdk
def test_an_incremental_stream_that_is_read_whole_hears_of_deletions(tmp_path: Path) -> None:
    with AirbyteDesk(tmp_path, incremental=True) as desk:
        desk.pull = {"stream": "tickets", "sync": "full"}
        desk.put(1, 2, text="first")
        pulled = Pulled(desk, tmp_path)
        pulled.run()
        desk.delete(1)
        pulled.run()
        assert pulled.texts() == {2: "first"}


# ---- what the manifest says --------------------------------------------------------------------------------------------------


def test_a_stream_is_known_without_starting_anything(tmp_path: Path) -> None:
    source = connector(tmp_path, desk_manifest(incremental=True), python="/nowhere")
    stream = source.stream(source.Pull(stream="tickets"))
    assert (stream.name, stream.key, stream.sync) == ("tickets", ("id",), "cursor")


def test_an_unknown_stream_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    source = connector(tmp_path)
    with pytest.raises(ConfigurationError, match="did you mean tickets"):
        source.stream(source.Pull(stream="tikets"))


def test_a_stream_that_is_not_incremental_cannot_be_read_by_cursor(tmp_path: Path) -> None:
    source = connector(tmp_path)
    with pytest.raises(ConfigurationError, match="incremental_sync"):
        source.stream(source.Pull.model_validate({"stream": "tickets", "sync": "cursor"}))


@needs_cdk
def test_a_key_that_has_to_be_worked_out_is_asked_of_the_cdk(tmp_path: Path) -> None:
    document = desk_manifest()
    document["definitions"]["tickets"]["primary_key"] = "#/definitions/key"
    document["definitions"]["key"] = ["id", "subject"]
    source = connector(tmp_path, document, python=str(AIRBYTE))
    assert source.stream(source.Pull(stream="tickets")).key == ()
    assert source.resolve(source.Pull(stream="tickets")).key == ("id", "subject")


@needs_cdk
def test_the_config_has_to_fit_the_manifests_own_specification(tmp_path: Path) -> None:
    assert "base_url" in refused(connector(tmp_path, config={}, python=str(AIRBYTE)))


@needs_cdk
def test_a_manifest_that_the_cdk_does_not_take(tmp_path: Path) -> None:
    document = desk_manifest()
    document["definitions"]["tickets"]["retriever"] = {"type": "SimplRetriever"}
    refused(connector(tmp_path, document, python=str(AIRBYTE)))


@pytest.mark.parametrize(("text", "what"), [("a: [", "no YAML"), ("- 1", "no low-code manifest"), ("version: 1", "no low-code manifest")])
def test_a_file_that_is_no_manifest(tmp_path: Path, text: str, what: str) -> None:
    source = connector(tmp_path)
    (tmp_path / "desk.yaml").write_text(text, "utf-8")
    assert what in refused(source)
    assert source.test_connection().status == "failed"


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    source = Airbyte(manifest=str(tmp_path / "nowhere.yaml"))
    assert "nowhere.yaml cannot be read" in refused(source)


# ---- whose code runs ---------------------------------------------------------------------------------------------------------


def with_custom_code(name: str = "components.Louder") -> dict[str, Any]:
    document = desk_manifest()
    document["definitions"]["tickets"]["transformations"] = [{"type": "CustomTransformation", "class_name": name}]
    return document


def test_code_that_nobody_trusts_is_refused_by_name_before_anything_starts(tmp_path: Path) -> None:
    said = refused(connector(tmp_path, with_custom_code(), python="/nowhere", trust=["components.Other"]))
    assert "components.Louder" in said
    assert "trust" in said


@needs_cdk
def test_trusted_code_beside_the_manifest_runs(tmp_path: Path) -> None:
    (tmp_path / "components.py").write_text(
        "from dataclasses import dataclass\n"
        "from airbyte_cdk.sources.declarative.transformations import RecordTransformation\n"
        "@dataclass\n"
        "class Louder(RecordTransformation):\n"
        "    def transform(self, record, config=None, stream_state=None, stream_slice=None):\n"
        "        record['subject'] = record['subject'].upper()\n",
        "utf-8",
    )
    definitions = with_custom_code()["definitions"]
    with AirbyteDesk(tmp_path, definitions=definitions) as desk:
        desk.put(1, text="first")
        source = desk.connector(trust=["components.Louder"])
        [batch] = list(source.pull(source.Pull(stream="tickets"), None, None))
        assert batch.rows["subject"].to_pylist() == ["FIRST"]


def test_code_put_together_while_the_manifest_runs_is_refused(tmp_path: Path) -> None:
    hidden = {"type": "ComponentMappingDefinition", "field_path": ["retriever", "class_name"], "value": "os.system"}
    document = desk_manifest(
        dynamic_streams=[{"type": "DynamicDeclarativeStream", "components_resolver": {"components_mapping": [hidden]}}]
    )
    assert "puts the name of a Python class together" in refused(connector(tmp_path, document, python="/nowhere"))


def test_tokens_for_one_use_are_refused_because_the_next_would_be_lost(tmp_path: Path) -> None:
    document = desk_manifest()
    document["definitions"]["tickets"]["retriever"]["requester"]["authenticator"]["refresh_token_updater"] = {"refresh_token_name": "x"}
    assert "refresh_token_updater" in refused(connector(tmp_path, document, python="/nowhere"))


@pytest.mark.parametrize("field", ["config", "secrets"])
def test_code_in_the_config_is_refused(tmp_path: Path, field: str) -> None:
    with pytest.raises(ValueError, match="code gets into a source"):
        connector(tmp_path, **{field: {"__injected_components_py": "print()"}})


# ---- the extra -----------------------------------------------------------------------------------------------------------------


def test_without_airbyte_cdk_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airbyte.child, "has_module", lambda name: False)
    said = refused(connector(tmp_path))
    assert "muxly-dagster[airbyte]" in said
    assert ".venv-airbyte/bin/python" in said


def test_an_interpreter_without_airbyte_cdk(tmp_path: Path) -> None:
    if airbyte.child.has_module("airbyte_cdk"):
        pytest.skip("this interpreter has it")
    assert "install airbyte-cdk there" in refused(connector(tmp_path, python=sys.executable))


def test_secrets_are_seen_nowhere(tmp_path: Path) -> None:
    source = connector(tmp_path)
    assert "t0ken" not in repr(source) + json.dumps(source.model_dump(mode="json"))
