"""A muxly.yaml inside a dg project."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster.components.core.package_entry import discover_entry_point_package_objects
from dagster.components.testing import create_defs_folder_sandbox
from dagster_shared.serdes.objects import EnvRegistryKey

import muxly_dagster
from muxly_dagster.component import MuxlyComponent
from muxly_dagster.errors import ConfigurationError

PROJECT = """
sources:
  shop: {connector: files, path: ./data, pulls: {orders: {glob: "orders*.csv", key: [id]}}}
transforms:
  customers: {key: [customer], sql: "select customer, count(*) as orders from shop.orders group by all"}
jobs:
  everything: {select: [shop, customers]}
"""

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment decides which project is loaded."""
    for name in ("MUXLY_PROJECT", "MUXLY_HOME", "MUXLY_DATABASE_URL", "MUXLY_LAKE_URL"):
        monkeypatch.delenv(name, raising=False)


def put_project(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "orders.csv").write_text("id,customer\n1,ada\n2,ada\n", "utf-8")
    (folder / "muxly.yaml").write_text(PROJECT, "utf-8")


def test_a_component_brings_the_assets_jobs_and_resources_of_its_project() -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=MuxlyComponent,
            defs_yaml_contents={"type": "muxly_dagster.MuxlyComponent", "attributes": {"project": "project/muxly.yaml"}},
        )
        put_project(path / "project")
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, definitions):
            assert isinstance(component, MuxlyComponent)
            keys = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
            assert keys == {"shop/orders", "customers"}
            with dg.DagsterInstance.ephemeral() as instance:
                assert definitions.resolve_job_def("everything").execute_in_process(instance=instance).success
        assert (path / "project" / ".muxly" / "lake" / "customers" / "_delta_log").is_dir()


def test_the_components_example_in_the_documentation_loads() -> None:
    page = (ROOT / "docs" / "dagster.md").read_text("utf-8")
    example = page.split("```yaml component\n")[1].split("```")[0]
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=MuxlyComponent, defs_yaml_contents=yaml.safe_load(example))
        put_project(path)
        with sandbox.load_component_and_build_defs(defs_path=path) as (_, definitions):
            assert definitions.resolve_job_def("everything")


def test_a_project_that_is_not_there_is_said_so() -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=MuxlyComponent,
            defs_yaml_contents={"type": "muxly_dagster.MuxlyComponent", "attributes": {"project": "none.yaml"}},
        )
        with pytest.raises(Exception, match=r"none\.yaml") as caught, sandbox.load_component_and_build_defs(defs_path=path):
            pass
        chain = [caught.value, caught.value.__cause__, caught.value.__context__]
        assert any(isinstance(error, ConfigurationError) for error in chain)


def test_dg_finds_the_component_in_the_package() -> None:
    found = discover_entry_point_package_objects()

    assert found[EnvRegistryKey("muxly_dagster", "MuxlyComponent")] is MuxlyComponent
    assert muxly_dagster.MuxlyComponent is MuxlyComponent


def test_importing_the_package_does_not_import_dagster() -> None:
    code = "import sys, muxly_dagster; print('dagster' in sys.modules, 'MuxlyComponent' in dir(muxly_dagster))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "True"]
