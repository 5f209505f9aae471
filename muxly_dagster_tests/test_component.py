"""A muxly.yaml inside a dg project."""

import subprocess
import sys
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster.components.core.package_entry import discover_package_objects
from dagster.components.testing import create_defs_folder_sandbox
from dagster_shared.serdes.objects import EnvRegistryKey

import muxly_dagster
from muxly_dagster.component import MuxlyComponent
from muxly_dagster.errors import ConfigurationError

PROJECT = """
sources:
  shop: {connector: files, path: FOLDER/data, pulls: {orders: {glob: "orders*.csv", key: [id]}}}
transforms:
  customers: {key: [customer], sql: "select customer, count(*) as orders from shop.orders group by all"}
jobs:
  everything: {select: [shop, customers]}
"""

ROOT = Path(__file__).parents[1]

# Dagster itself reads defs.yaml with a function that pydantic has deprecated, notes its place in classes that are in beta, and copies
# sensors with a parameter that is.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated"),
    pytest.mark.filterwarnings("ignore:Class `(LocalFileCodeReference|CodeReferencesMetadataValue)` is currently in beta"),
    pytest.mark.filterwarnings("ignore:Parameter `owners` of initializer `SensorDefinition.__init__` is currently in beta"),
]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment decides which project is loaded."""
    for name in ("MUXLY_PROJECT", "MUXLY_HOME", "MUXLY_DATABASE_URL", "MUXLY_LAKE_URL"):
        monkeypatch.delenv(name, raising=False)


def put_project(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "orders.csv").write_text("id,customer\n1,ada\n2,ada\n", "utf-8")
    (folder / "muxly.yaml").write_text(PROJECT.replace("FOLDER", str(folder)), "utf-8")


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
        loading = sandbox.load_component_and_build_defs(defs_path=path)
        with pytest.raises(Exception, match="Error while building definitions") as caught, loading:
            pass
        cause = caught.value.__cause__
        assert isinstance(cause, ConfigurationError)
        assert "none.yaml, which does not exist; run `muxly init`" in str(cause)


def test_dg_finds_the_component_in_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    modules = list(project["entry-points"]["dagster_dg_cli.registry_modules"].values())
    found = discover_package_objects(modules)

    assert found[EnvRegistryKey("muxly_dagster", "MuxlyComponent")] is MuxlyComponent
    assert muxly_dagster.MuxlyComponent is MuxlyComponent


def test_importing_the_package_does_not_import_dagster() -> None:
    code = "import sys, muxly_dagster; print('dagster' in sys.modules, 'MuxlyComponent' in dir(muxly_dagster))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "True"]
