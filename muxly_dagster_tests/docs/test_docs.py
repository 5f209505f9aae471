"""The documentation: every project and manifest in it loads, the commands of getting started run, and every page is reachable."""

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from muxly_dagster import catalog
from muxly_dagster.assembly import assemble
from muxly_dagster.connector import PullSettings
from muxly_dagster.destination import Destination
from muxly_dagster.project.load import load_project
from muxly_dagster_tests.cli import warm

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<info>[^\n`]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")


@dataclass(frozen=True)
class Example:
    """One fenced block of a page."""

    page: Path
    line: int
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def examples(info: str) -> list[Example]:
    found = []
    for page in PAGES:
        content = page.read_text("utf-8")
        for match in FENCE.finditer(content):
            if match["info"].strip() == info:
                found.append(Example(page, content.count("\n", 0, match.start()) + 1, info, match["text"]))
    return found


def an_environment_for(text: str) -> dict[str, str]:
    """A value for every variable that the text needs, of the kind that its name promises."""
    return {name: _value(name) for name in VARIABLE.findall(text)}


def _value(name: str) -> str:
    if "DATABASE" in name or "WAREHOUSE" in name or name.endswith(("SOURCE_URL", "DB_URL", "SHOP_URL", "SQL_URL")):
        return "postgresql://someone:secret@127.0.0.1/somewhere"
    return "https://example.com/somewhere" if name.endswith(("URL", "HOOK")) else "something"


@pytest.mark.parametrize("example", examples("yaml muxly"), ids=str)
def test_every_project_in_the_documentation_loads(example: Example, tmp_path: Path) -> None:
    for manifest in examples("yaml manifest"):
        described = yaml.safe_load(manifest.text)
        (tmp_path / f"{described['id']}.yaml").write_text(manifest.text, "utf-8")
    (tmp_path / "muxly.yaml").write_text(example.text, "utf-8")
    assembly = assemble(load_project(tmp_path / "muxly.yaml", an_environment_for(example.text)))
    assert assembly.sources or assembly.transforms or assembly.destinations, "the example declares nothing"


@pytest.mark.parametrize("example", examples("yaml manifest"), ids=str)
def test_every_manifest_in_the_documentation_loads(example: Example, tmp_path: Path) -> None:
    from muxly_dagster.manifest.connector import load_manifest

    path = tmp_path / "manifest.yaml"
    path.write_text(example.text, "utf-8")
    assert load_manifest(path).id == yaml.safe_load(example.text)["id"]


def test_the_commands_of_getting_started_run_in_the_order_they_are_given(tmp_path: Path) -> None:
    page = ROOT / "docs" / "getting-started.md"
    blocks = [example.text for example in examples("console") if example.page == page]
    commands = [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    assert len(commands) > 5
    commands_folder = tmp_path / "bin"
    commands_folder.mkdir()
    muxly = commands_folder / "muxly"
    muxly.write_text(f'#!/bin/sh\nexec {shlex.join(warm.command())} "$@"\n')
    muxly.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MUXLY_", "DAGSTER_"))}
    environ = kept | {"PATH": f"{commands_folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    script = "set -eux\n" + "\n".join(commands)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_page_is_in_the_navigation_and_every_entry_has_a_page() -> None:
    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        below = entry if isinstance(entry, list) else list(entry.values()) if isinstance(entry, dict) else []
        return [page for item in below for page in pages(item)]

    navigation = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    assert sorted(navigation) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_command_has_a_place_in_getting_started() -> None:
    from muxly_dagster.cli.app import app

    text = (ROOT / "docs" / "getting-started.md").read_text("utf-8")
    names = [command.name or getattr(command.callback, "__name__", "").rstrip("_") for command in app.registered_commands]
    names += [group.name or "" for group in app.registered_groups]
    assert len(names) > 8
    assert [name for name in names if f"`muxly {name}" not in text] == []


def test_the_readme_begins_with_the_two_commands() -> None:
    first = FENCE.search((ROOT / "README.md").read_text("utf-8").replace("```\n", "```text\n", 1))
    assert first
    assert first["text"].split("\n")[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("room", ["connectors", "destinations", "transforms"])
def test_everything_in_the_catalog_has_its_page(room: str) -> None:
    names = {"connectors": catalog.connector_names, "destinations": catalog.destination_names, "transforms": catalog.step_names}[room]()
    guides = {"manifest", "authentication", "answers"} if room == "connectors" else set()
    assert sorted({page.stem for page in (ROOT / "docs" / room).glob("*.md")} - guides) == sorted(names)


def test_every_field_of_a_destination_or_connector_is_on_its_page() -> None:
    missing = []
    for room, names, find in (
        ("connectors", catalog.connector_names(), catalog.connector_class),
        ("destinations", catalog.destination_names(), catalog.destination_class),
    ):
        for name in names:
            model = find(name)
            fields = {**model.model_fields, **(model.Pull.model_fields if room == "connectors" else {})}
            everybodys = PullSettings.model_fields if room == "connectors" else Destination.model_fields
            own = {field.alias or said for said, field in fields.items()} - set(everybodys)
            page = (ROOT / "docs" / room / f"{name}.md").read_text("utf-8")
            missing += [f"{room}/{name}: {field}" for field in sorted(own) if f"`{field}`" not in page]
    assert missing == []


def test_every_setting_is_explained() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    named = set(re.findall(r"MUXLY_[A-Z_]+[A-Z]", (ROOT / "muxly_dagster" / "settings.py").read_text("utf-8")))
    assert {name for name in named if f"`{name}`" not in page} == set()
