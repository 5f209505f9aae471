"""`muxly plugins list`, and what other commands make of plugins."""

from pathlib import Path

import pytest

from muxly_dagster_tests.cli.command import Muxly, MuxlyHere
from muxly_dagster_tests.plugins.shelf import Shelf, connector, local, write

PROJECT = """
plugins: [acme-billing, ./mine, acme-gone]
sources: {bills: {connector: billing, pulls: [invoices]}}
"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """Two installed plugins: one is listed, the other would fail if it were imported."""
    shelf = Shelf(tmp_path / "site-packages")
    monkeypatch.syspath_prepend(str(shelf.folder))
    shelf.install("acme-billing", connector("billing"), {"connectors/billing": "Billing"})
    shelf.install("acme-other", "1 / 0", {"destinations/other": "Other", "auth/badge": "Badge"}, requires="")
    return shelf


@pytest.fixture
def muxly(shelf: Shelf, tmp_path: Path) -> Muxly:
    """The command in a project with plugins of its own: one good, one broken, one that is not listed."""
    project = tmp_path / "project"
    write(project / "muxly.yaml", PROJECT)
    write(project / "mine" / "ledger.py", local("ledger"))
    write(project / "mine" / "torn.py", "1 / 0")
    write(project / "plugins" / "idle.py", "1 / 0")
    return MuxlyHere(project)


def test_every_plugin_is_listed_with_what_is_wrong_with_it(muxly: Muxly) -> None:
    done = muxly("plugins", "list", "--json")
    listed = {each["name"]: each for each in done.json if not each["name"].startswith("muxly")}
    assert done.code == 0
    assert {name: (each["status"], each["from"]) for name, each in listed.items()} == {
        "acme-billing": ("enabled", "package"),
        "acme-other": ("disabled", "package"),
        "acme-gone": ("broken", "package"),
        "./mine/ledger.py": ("enabled", "folder"),
        "./mine/torn.py": ("broken", "folder"),
        "./plugins/idle.py": ("disabled", "folder"),
    }
    billing = listed["acme-billing"]
    assert (billing["version"], billing["author"], billing["muxly"], billing["why"]) == ("1.2.0", "Ada Lovelace", ">=0.1", "")
    assert billing["brings"] == [{"kind": "connector", "id": "billing", "enabled": True}]
    assert [(each["kind"], each["id"], each["enabled"]) for each in listed["acme-other"]["brings"]] == [
        ("destination", "other", False),
        ("auth", "badge", False),
    ]
    assert "ZeroDivisionError" in listed["./mine/torn.py"]["why"] and listed["./mine/torn.py"]["do"]
    assert "no plugin acme-gone is installed" in listed["acme-gone"]["why"]


def test_people_read_a_table_and_the_reasons_below_it(muxly: Muxly) -> None:
    done = muxly("plugins", "list")
    assert done.code == 0
    assert "acme-billing" in done.out and "connector billing" in done.out and "disabled" in done.out
    assert "./mine/torn.py: the plugin ./mine/torn.py is broken: its import failed with ZeroDivisionError" in done.err


def test_installed_plugins_are_listed_without_a_project_too(shelf: Shelf, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    listed = {each["name"]: each["status"] for each in MuxlyHere(empty)("plugins", "list", "--json").json}
    assert listed["acme-billing"] == listed["acme-other"] == "disabled"
    assert shelf.imported() == []


def test_a_check_warns_of_broken_plugins_and_is_content(muxly: Muxly) -> None:
    done = muxly("check", "--offline")
    assert done.code == 0
    assert "warning: " in done.err and "./mine/torn.py is broken" in done.err
    told = muxly("check", "--offline", "--json").json
    assert (told["status"], [each["path"] for each in told["warnings"]]) == ("ok", ["plugins.1", "plugins.2"])


def test_the_schema_knows_the_fields_of_enabled_plugins(muxly: Muxly, tmp_path: Path) -> None:
    text = muxly("schema").out
    assert "connector.billing" not in MuxlyHere(tmp_path)("schema").out
    assert '"const": "billing"' in text and '"const": "ledger"' in text


def test_connectors_of_plugins_are_shown_like_all_others(muxly: Muxly) -> None:
    listed = {each["id"]: each["kind"] for each in muxly("connectors", "list", "--json").json}
    assert (listed["billing"], listed["ledger"], listed["sql"]) == ("plugin", "plugin", "python")
    assert "Billing" in muxly("connectors", "show", "billing").out
    assert "connector: billing" in muxly("connectors", "template", "billing", "--name", "bills").out
