"""Plugins that are installed or lie in a project's folder: found, enabled, refused in words, and never in each other's way."""

import sys
from pathlib import Path

import pytest

from muxly_dagster.catalog import enable_plugins
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.plugins import NONE, Plugins, seconds_from
from muxly_dagster_tests.plugins.shelf import MANIFEST, Shelf, connector, local, write


def notices(plugins: Plugins) -> list[str]:
    return [f"{notice.what} → {notice.do}" for notice in plugins.notices]


def notice(plugins: Plugins) -> str:
    [said] = notices(plugins)
    return said


def test_an_installed_plugin_is_not_imported_before_it_is_listed(shelf: Shelf, tmp_path: Path) -> None:
    shelf.install("acme-billing", connector("billing"), {"connectors/billing": "Billing"})
    assert enable_plugins([], tmp_path) is NONE
    assert shelf.imported() == []
    plugins = enable_plugins(["acme-billing"], tmp_path)
    assert plugins.find("connector", "billing").title == "Billing"
    assert len(shelf.imported()) == 1


@pytest.mark.parametrize("name", ["acme-billing", "Acme_Billing", "billing"])
def test_it_is_listed_by_its_package_or_by_an_id(shelf: Shelf, tmp_path: Path, name: str) -> None:
    shelf.install("acme-billing", connector("billing"), {"connectors/billing": "Billing"})
    plugins = enable_plugins([name], tmp_path)
    assert (plugins.ids("connector"), plugins.notices) == (["billing"], ())
    [loaded] = plugins.loaded
    found = loaded.found
    assert (found.name, found.version, found.author, found.muxly) == ("acme-billing", "1.2.0", "Ada Lovelace", ">=0.1")


def test_listing_an_id_enables_nothing_else_of_the_package(shelf: Shelf, tmp_path: Path) -> None:
    code = connector("billing") + connector("ledger", "Ledger")
    shelf.install("acme-billing", code, {"connectors/billing": "Billing", "connectors/ledger": "Ledger"})
    plugins = enable_plugins(["ledger"], tmp_path)
    assert plugins.ids("connector") == ["ledger"]
    refused = plugins.why_not("connector", "billing")
    assert refused and "comes with the plugin acme-billing, which is not enabled; add acme-billing to `plugins`" in str(refused)


def test_a_failing_import_names_the_package_and_stops_no_other(shelf: Shelf, tmp_path: Path) -> None:
    shelf.install("acme-broken", "import no_such_library", {"connectors/broken": "Broken"})
    shelf.install("acme-leaving", "import sys\nsys.exit(3)", {"connectors/leaving": "Leaving"})
    shelf.install("acme-typo", "def (", {"connectors/typo": "Typo"})
    shelf.install("acme-billing", connector("billing"), {"connectors/billing": "Billing", "connectors/gone": "Gone"})
    plugins = enable_plugins(["acme-broken", "acme-leaving", "acme-typo", "acme-billing"], tmp_path)
    assert plugins.ids("connector") == ["billing"]
    broken, leaving, typo, gone = notices(plugins)
    assert "the plugin acme-broken is broken: its import failed with ModuleNotFoundError: No module named 'no_such_library'" in broken
    assert "install what brings the module no_such_library" in broken and "acme_broken.py:1" in broken
    assert "the plugin acme-leaving is broken: its import failed with SystemExit: 3" in leaving
    assert "SyntaxError" in typo and "acme_typo.py:1" in typo
    assert "AttributeError" in gone and "Gone" in gone
    assert [each.entry for each in plugins.notices] == [0, 1, 2, 3]
    assert "'broken' comes with the plugin acme-broken, which is broken" in str(plugins.why_not("connector", "broken"))


def test_an_import_that_hangs_is_given_up_and_the_rest_goes_on(shelf: Shelf, tmp_path: Path) -> None:
    shelf.install("acme-hanging", "import threading\nthreading.Event().wait()", {"connectors/hanging": "Hanging"})
    shelf.install("acme-billing", connector("billing"), {"connectors/billing": "Billing"})
    first = enable_plugins(["acme-hanging"], tmp_path, 0.2)
    plugins = enable_plugins(["acme-hanging", "acme-billing"], tmp_path, 10)
    assert "the plugin acme-hanging is broken: its import did not end within 0.2 seconds" in notice(first)
    assert "MUXLY_PLUGIN_SECONDS" in notice(plugins)
    assert plugins.ids("connector") == ["billing"]


def test_the_time_limit_comes_from_the_environment() -> None:
    assert seconds_from({}) == 20
    assert seconds_from({"MUXLY_PLUGIN_SECONDS": "1.5"}) == 1.5
    for wrong in ("soon", "0", "-3", "nan", "inf"):
        with pytest.raises(ConfigurationError, match="is not a number of seconds"):
            seconds_from({"MUXLY_PLUGIN_SECONDS": wrong})


@pytest.mark.parametrize(
    ("code", "entry", "told"),
    [
        ("Billing = dict", "connectors/billing", "its connector billing is no subclass of muxly_dagster.connector.Connector"),
        ("Billing = 5", "destinations/billing", "its destination billing is no subclass of muxly_dagster.destination.Destination"),
        (connector("other"), "connectors/billing", "calls itself other in `id`, but billing in its entry point"),
        (connector("Bill-ing"), "connectors/Bill-ing", "has the `id` 'Bill-ing', which is no name"),
        (
            "from muxly_dagster.connector import Connector\nclass Billing(Connector):\n    pass\n",
            "connectors/billing",
            "does not define pull, stream, test_connection and has no `id`",
        ),
        (
            "from muxly_dagster.transform import Step\nclass Billing(Step):\n    pass\n",
            "transforms/billing",
            "its transform billing does not define sql and has no `name`",
        ),
        (connector("billing") + "    Pull = int\n", "connectors/billing", "has a `Pull` that is no subclass"),
        ("Billing = 5", "auth/billing", "its way to sign in billing cannot be called"),
        ("class Billing:\n    pass\n", "auth/billing", "does not define headers, refused, secrets"),
    ],
)
def test_a_wrong_contract_is_told_with_all_that_is_missing(shelf: Shelf, tmp_path: Path, code: str, entry: str, told: str) -> None:
    shelf.install("acme-billing", code, {entry: "Billing"})
    plugins = enable_plugins(["acme-billing"], tmp_path)
    assert told in notice(plugins)
    assert plugins.things == {}


def test_a_plugin_for_another_muxly_is_not_imported(shelf: Shelf, tmp_path: Path) -> None:
    shelf.install("acme-billing", connector("billing"), {"connectors/billing": "Billing"}, requires="muxly_dagster>=99")
    plugins = enable_plugins(["acme-billing"], tmp_path)
    assert "the plugin acme-billing is broken: it needs Muxly >=99, and this is 0." in notice(plugins)
    assert shelf.imported() == []
    assert plugins.why_not("connector", "billing")


def test_what_comes_with_muxly_keeps_its_name(shelf: Shelf, tmp_path: Path) -> None:
    shelf.install("acme-sql", connector("sql"), {"connectors/sql": "Billing"})
    plugins = enable_plugins(["acme-sql"], tmp_path)
    assert "the plugin acme-sql brings the connector 'sql', which Muxly has already" in notice(plugins)
    assert plugins.find("connector", "sql") is None


def test_of_two_plugins_with_one_id_neither_is_used_and_both_are_named(shelf: Shelf, tmp_path: Path) -> None:
    shelf.install("acme-billing", connector("billing"), {"connectors/billing": "Billing"})
    shelf.install("other-billing", connector("billing") + connector("ledger", "Ledger"), {
        "connectors/billing": "Billing", "connectors/ledger": "Ledger",
    })  # fmt: skip
    plugins = enable_plugins(["acme-billing", "other-billing"], tmp_path)
    assert "the plugins acme-billing and other-billing both bring the connector 'billing': neither is used" in notice(plugins)
    assert plugins.ids("connector") == ["ledger"]
    assert "acme-billing and other-billing" in str(plugins.why_not("connector", "billing"))


def test_what_is_listed_and_not_there_is_told(shelf: Shelf, tmp_path: Path) -> None:
    shelf.install("acme-billing", connector("billing"), {"connectors/billing": "Billing"})
    plugins = enable_plugins(["acme-biling", "zzz", "./nowhere", "./notes.txt"], write(tmp_path / "notes.txt", "").parent)
    near, none, path, text = notices(plugins)
    assert "no plugin acme-biling is installed → did you mean acme-billing?" in near
    assert "pip install zzz" in none
    assert "there is no folder or file" in path and str(tmp_path / "nowhere") in path
    assert "./notes.txt is no plugin" in text
    assert "which `plugins` lists" in str(plugins.why_not("connector", "bills"))


# ---- a folder of the project -----------------------------------------------------------------------------------------


def test_a_folder_brings_its_files_packages_and_manifests(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    write(folder / "billing.py", local("billing", header='version="0.3", author="Ada", muxly=">=0.1"'))
    write(folder / "ledger" / "__init__.py", "from .parts import plugin\n")
    write(folder / "ledger" / "parts.py", local("ledger"))
    write(folder / "tickets.yaml", MANIFEST.format(id="tickets"))
    write(folder / "_private.py", "raise RuntimeError")
    write(folder / "README.md", "not a plugin")
    plugins = enable_plugins(["./plugins"], tmp_path)
    assert (plugins.ids("connector"), notices(plugins)) == (["billing", "ledger", "tickets"], [])
    told = {each.found.name: (each.found.version, each.found.author, each.found.muxly) for each in plugins.loaded}
    assert told == {
        "./plugins/billing.py": ("0.3", "Ada", ">=0.1"),
        "./plugins/ledger": ("0.3", "Ada", ""),
        "./plugins/tickets.yaml": ("3.1.0", "Grace", ""),
    }


def test_one_file_can_be_listed_alone_and_files_share_code(tmp_path: Path) -> None:
    write(tmp_path / "plugins" / "_shared.py", 'ID = "billing"\n')
    write(tmp_path / "plugins" / "billing.py", "from ._shared import ID\n" + local("billing") + "assert ID\n")
    write(tmp_path / "plugins" / "ledger.py", "raise RuntimeError('never imported')")
    plugins = enable_plugins(["plugins/billing.py"], tmp_path)
    assert (plugins.ids("connector"), notices(plugins)) == (["billing"], [])


def test_a_broken_file_stops_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    write(folder / "billing.py", local("billing"))
    write(folder / "broken.py", "1 / 0")
    write(folder / "silent.py", connector("silent"))
    write(folder / "old.py", local("old", header='version="1", muxly=">=99"'))
    write(folder / "odd.py", local("odd", header='version="1", muxly="new"'))
    write(folder / "tickets.yaml", MANIFEST.format(id="tickets").replace("request:", "reqest:"))
    write(folder / "empty.py", 'from muxly_dagster.plugins import Plugin\nplugin = Plugin(version="1")\n')
    plugins = enable_plugins(["./plugins"], tmp_path)
    assert plugins.ids("connector") == ["billing"]
    broken, empty, odd, old, silent, tickets, *more = sorted(notices(plugins))
    assert "broken.py is broken: its import failed with ZeroDivisionError: division by zero (broken.py:1)" in broken
    assert "brings nothing" in empty and "which is no version" in odd and "needs Muxly >=99" in old
    assert "silent.py is broken: it does not say what it is → add `from muxly_dagster.plugins import Plugin`" in silent
    assert "tickets.yaml" in tickets and "tickets.yaml:9:" in tickets and more == []
    assert "should come with the plugin ./plugins/broken.py, which is broken" in str(plugins.why_not("connector", "broken"))


def test_a_file_that_was_repaired_is_read_again(tmp_path: Path) -> None:
    file = write(tmp_path / "plugins" / "billing.py", "1 / 0")
    assert enable_plugins(["./plugins"], tmp_path).ids("connector") == []
    write(file, local("billing"))
    plugins = enable_plugins(["./plugins"], tmp_path)
    assert plugins.ids("connector") == ["billing"]
    assert enable_plugins(["./plugins"], tmp_path).find("connector", "billing") is plugins.find("connector", "billing")


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ('version="1", connectors=Billing', "`connectors` is no list"),
        ('version="1", transforms=None', "`transforms` is no list"),
        ('version="1", connectors=[Billing], auth=[Billing]', "`auth` is no map"),
        ('version=1.0, connectors=[Billing]', "`version` is no text"),
        ('version="1", connectors=[Billing], muxly=0.1', "`muxly` is no text"),
    ],
)  # fmt: skip
def test_a_header_that_is_no_header_is_told_with_its_place(tmp_path: Path, header: str, why: str) -> None:
    code = f"from muxly_dagster.plugins import Plugin\n{connector('billing')}\nplugin = Plugin({header})\n"
    write(tmp_path / "plugins" / "billing.py", code)
    said = notice(enable_plugins(["./plugins"], tmp_path))
    assert "the plugin ./plugins/billing.py is broken" in said and why in said
    assert f"billing.py:{len(code.splitlines())}" in said


def test_a_class_that_fails_when_it_is_looked_at_stops_no_other(tmp_path: Path) -> None:
    hostile = "class Meta(type):\n    def __getattribute__(cls, name): raise RuntimeError('no')\nclass Mine(metaclass=Meta): pass\n"
    header = "from muxly_dagster.plugins import Plugin\nplugin = Plugin(version='1', connectors=[Mine])\n"
    write(tmp_path / "plugins" / "hostile.py", hostile + header)
    write(tmp_path / "plugins" / "billing.py", local("billing"))
    plugins = enable_plugins(["./plugins"], tmp_path)
    assert plugins.ids("connector") == ["billing"]
    assert "hostile.py is broken" in notice(plugins)


def test_a_file_that_cannot_be_opened_stops_no_other(tmp_path: Path) -> None:
    write(tmp_path / "plugins" / "billing.py", local("billing"))
    (tmp_path / "plugins" / "gone.py").symlink_to("nowhere.py")
    write(tmp_path / "plugins" / "a.b.py", local("ledger"))
    plugins = enable_plugins(["./plugins"], tmp_path)
    assert plugins.ids("connector") == ["billing"]
    dotted, gone = notices(plugins)
    assert "gone.py is broken: it cannot be opened" in gone
    assert "its file's name holds a dot" in dotted and "a_b.py" in dotted


def test_what_a_plugin_prints_at_import_is_no_part_of_the_output(shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Machines read standard output as JSON."""
    shelf.install("acme-billing", "print('look at me')\n" + connector("billing"), {"connectors/billing": "Billing"})
    assert enable_plugins(["acme-billing"], tmp_path).ids("connector") == ["billing"]
    print("result")
    assert capsys.readouterr() == ("result\n", "look at me\n")


def test_output_comes_back_from_a_plugin_whose_import_hangs(shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.install("acme-billing", "import threading\nthreading.Event().wait()", {"connectors/billing": "Billing"})
    assert "did not end within" in notice(enable_plugins(["acme-billing"], tmp_path, seconds=0.05))
    print("result")
    assert capsys.readouterr().out == "result\n"


def test_a_package_may_bring_a_manifest(shelf: Shelf, tmp_path: Path) -> None:
    write(shelf.folder / "tickets.yaml", MANIFEST.format(id="tickets"))
    code = 'from pathlib import Path\nTICKETS = Path(__file__).with_name("tickets.yaml")\n'
    shelf.install("acme-tickets", code, {"connectors/tickets": "TICKETS"})
    plugins = enable_plugins(["acme-tickets"], tmp_path)
    assert (plugins.ids("connector"), notices(plugins)) == (["tickets"], [])


def test_the_thread_that_imported_a_plugin_lives_on(shelf: Shelf, tmp_path: Path) -> None:
    """Native libraries keep things for the thread that loads them; one crashed the process when that thread ended."""
    shelf.install("acme-billing", "import threading\nHERE = threading.current_thread()\n" + connector("billing"), {
        "connectors/billing": "Billing",
    })  # fmt: skip
    assert notices(enable_plugins(["acme-billing"], tmp_path)) == []
    [module] = shelf.imported()
    assert sys.modules[module].HERE.is_alive()
