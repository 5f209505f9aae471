"""The catalog: what is found in the folders, and that finding it costs nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from muxly_dagster import catalog
from muxly_dagster.connector import Connector, PullSettings
from muxly_dagster.destination import Destination
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.transform import Step

PACKAGE = Path(catalog.__file__).parent


def test_every_file_in_the_folders_is_found() -> None:
    for names, folder in (
        (catalog.connector_names(), "connectors"),
        (catalog.destination_names(), "destinations"),
        (catalog.step_names(), "transforms"),
    ):
        there = {p.stem for p in (PACKAGE / folder).iterdir() if (p / "__init__.py").exists() or p.suffix in (".py", ".yaml")}
        assert set(names) == {name for name in there if not name.startswith("_")}
        assert list(names) == sorted(names)


@pytest.mark.parametrize("name", catalog.connector_names())
def test_every_connector_keeps_to_its_contract(name: str) -> None:
    kind = catalog.connector_class(name)
    assert issubclass(kind, Connector)
    assert kind.id == name
    assert kind.title
    assert issubclass(kind.Pull, PullSettings)


@pytest.mark.parametrize("name", catalog.destination_names())
def test_every_destination_keeps_to_its_contract(name: str) -> None:
    kind = catalog.destination_class(name)
    assert issubclass(kind, Destination)
    assert kind.type == name
    assert kind.title


@pytest.mark.parametrize("name", catalog.step_names())
def test_every_step_keeps_to_its_contract(name: str) -> None:
    kind = catalog.step_class(name)
    assert issubclass(kind, Step)
    assert kind.name == name


def test_listing_names_imports_no_connector_and_no_vendor_library() -> None:
    program = """
import sys
from muxly_dagster import catalog
assert catalog.connector_names() and catalog.destination_names() and catalog.step_names()
rooms = tuple(f"muxly_dagster.{room}." for room in ("connectors", "destinations", "transforms"))
vendors = {"pandas", "duckdb", "deltalake", "sqlalchemy", "psycopg", "pymysql", "hubspot", "google.analytics", "slack_sdk", "boto3"}
print(sorted([*(module for module in sys.modules if module.startswith(rooms)), *(vendors & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean webhook"):
        catalog.destination_class("webhok")
    with pytest.raises(ConfigurationError, match="did you mean sql"):
        catalog.connector_class("sqll")
    with pytest.raises(ConfigurationError, match="did you mean rename"):
        catalog.step_class("renam")


def test_private_files_and_paths_are_no_names() -> None:
    for name in ("__init__", "_landing", "os", "database.py", "../errors"):
        with pytest.raises(ConfigurationError):
            catalog.destination_class(name)


def test_a_manifest_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no manifest"):
        catalog.connector_class("./things.yaml", tmp_path)
