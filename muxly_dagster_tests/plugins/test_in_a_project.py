"""A project uses its plugins: what is broken is a mistake only where it is used, and plugins can sign in anything."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from muxly_dagster.assembly import Assembly, load_assembly
from muxly_dagster.auth import TokenSource
from muxly_dagster.errors import ConfigurationError, SignInError
from muxly_dagster.plugins.signing import guarded
from muxly_dagster_tests.http.server import Asked, Server, answer, json_answer
from muxly_dagster_tests.plugins.shelf import Shelf, connector, local, write

SOURCE = "sources:\n  bills: {connector: billing, pages: 3, pulls: [invoices]}\n"

WAYS = """
class Badge:
    made = 0

    def __init__(self, settings):
        type(self).made += 1
        self.key = settings["key"]

    def headers(self):
        return {"X-Badge": self.key}

    def refused(self, headers):
        return False

    def secrets(self):
        return (self.key,)

class Torn(Badge):
    def headers(self):
        raise RuntimeError(f"cannot read {self.key}")

def nothing(settings):
    return settings
"""
ENTRIES = {"auth/badge": "Badge", "auth/torn": "Torn", "auth/nothing": "nothing"}

SIGNED = """
plugins: [acme-ways]
sources:
  desk:
    connector:
      hosts: [127.0.0.1]
      base_url: http://127.0.0.1:1
      auth: [custom]
      streams: {{tickets: {{request: {{path: /tickets}}, key: [id]}}}}
    base_url: {url}
    auth: {{kind: custom, use: {use}, settings: {{{settings}}}}}
    pulls: [tickets]
"""


def assembled(folder: Path, text: str, **environ: str) -> Assembly:
    return load_assembly(write(folder / "muxly.yaml", text), environ)


def mistakes(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        assembled(folder, text, **environ)
    return [str(problem).removeprefix(f"{folder}/") for problem in caught.value.problems]


def test_a_source_of_a_plugin_is_like_any_other(shelf: Shelf, tmp_path: Path) -> None:
    shelf.install("acme-billing", connector("billing"), {"connectors/billing": "Billing"})
    assembly = assembled(tmp_path, "plugins: acme-billing\n" + SOURCE)
    assert list(assembly.pulls) == ["bills.invoices"]
    assert assembly.sources["bills"].model_dump() == {"pages": 3}
    assert assembly.warnings == ()


def test_a_source_whose_plugin_is_not_enabled_is_told_which_one_it_is(shelf: Shelf, tmp_path: Path) -> None:
    shelf.install("acme-billing", connector("billing"), {"connectors/billing": "Billing"})
    [told] = mistakes(tmp_path, SOURCE)
    assert told == (
        "muxly.yaml:2:22: sources.bills.connector: the connector 'billing' comes with the plugin acme-billing, which is not enabled; "
        "add acme-billing to `plugins`"
    )
    assert shelf.imported() == []


def test_a_broken_plugin_that_nothing_uses_is_a_warning(shelf: Shelf, tmp_path: Path) -> None:
    shelf.install("acme-billing", connector("billing"), {"connectors/billing": "Billing"})
    write(tmp_path / "mine" / "broken.py", "1 / 0")
    [warning] = assembled(tmp_path, "plugins: [acme-billing, ./mine]\n" + SOURCE).warnings
    assert (warning.path, warning.line, warning.column) == ("plugins.1", 1, 25)
    assert "the plugin ./mine/broken.py is broken" in warning.what


def test_a_broken_plugin_that_is_used_is_a_mistake_of_its_source_alone(shelf: Shelf, tmp_path: Path) -> None:
    shelf.install("acme-billing", "1 / 0", {"connectors/billing": "Billing"})
    write(tmp_path / "mine" / "ledger.py", local("ledger"))
    plugin, source = mistakes(tmp_path, "plugins: [acme-billing, ./mine]\n" + SOURCE + "  books: {connector: ledger, pulls: [all]}\n")
    assert plugin.startswith("muxly.yaml:1:11: plugins.0: the plugin acme-billing is broken: its import failed with ZeroDivisionError")
    assert source.startswith(
        "muxly.yaml:3:22: sources.bills.connector: the connector 'billing' comes with the plugin acme-billing, which is"
    )


def test_names_of_plugins_are_among_those_that_are_offered(shelf: Shelf, tmp_path: Path) -> None:
    shelf.install("acme-billing", connector("billing"), {"connectors/billing": "Billing"})
    [told] = mistakes(tmp_path, "plugins: acme-billing\nsources: {bills: {connector: biling}}")
    assert told.endswith("there is no connector 'biling'; did you mean billing?")


def test_the_time_limit_of_a_project_comes_from_its_environment(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "slow.py", "import threading\nthreading.Event().wait()")
    [warning] = assembled(tmp_path, "plugins: ./mine", MUXLY_PLUGIN_SECONDS="0.2").warnings
    assert "did not end within 0.2 seconds" in warning.what


# ---- signing in ------------------------------------------------------------------------------------------------------


@pytest.fixture
def ways(shelf: Shelf) -> Shelf:
    shelf.install("acme-ways", WAYS, ENTRIES)
    return shelf


def test_a_plugin_signs_in_a_source(ways: Shelf, tmp_path: Path) -> None:
    def reply(asked: Asked) -> bytes:
        return json_answer([]) if asked.headers.get("x-badge") == "k-12345" else answer(401, "no")

    with Server(reply) as server:
        text = SIGNED.format(url=server.url, use="badge", settings='key: "${KEY}"')
        source = assembled(tmp_path, text, KEY="k-12345").sources["desk"]
        again = assembled(tmp_path, text, KEY="k-12345").sources["desk"]
        wrong = assembled(tmp_path, text, KEY="k-99999").sources["desk"]
        assert [each.test_connection().status for each in (source, again, wrong)] == ["ok", "ok", "failed"]
    told = json.dumps(source.model_dump(mode="json")) + repr(source)
    assert "k-12345" not in told and "**********" in told


def test_a_way_that_nobody_brings_is_a_mistake_at_its_place(ways: Shelf, tmp_path: Path) -> None:
    [told] = mistakes(tmp_path, SIGNED.format(url="http://127.0.0.1:1", use="bagde", settings="key: k"))
    assert told.startswith("muxly.yaml:")
    assert told.endswith("sources.desk.auth.use: there is no way to sign in 'bagde'; did you mean badge?")


@pytest.mark.parametrize(
    ("use", "settings", "told"),
    [
        ("torn", "key: k-12345", "the way to sign in torn of the plugin acme-ways failed with RuntimeError"),
        ("badge", "kee: k-12345", "the way to sign in badge of the plugin acme-ways cannot use these settings (KeyError)"),
        ("nothing", "key: k-12345", "the way to sign in nothing of the plugin acme-ways gives dict, which is no token source"),
    ],
)
def test_a_way_that_fails_is_named_without_its_secrets(ways: Shelf, tmp_path: Path, use: str, settings: str, told: str) -> None:
    source = assembled(tmp_path, SIGNED.format(url="http://127.0.0.1:1", use=use, settings=settings)).sources["desk"]
    result = source.test_connection()
    assert result.status == "failed" and result.what.startswith(told)
    assert "k-12345" not in f"{result}"


def test_one_source_of_tokens_serves_all_with_the_same_settings() -> None:
    class Counted:
        def __init__(self, settings: Mapping[str, str]) -> None:
            self.settings = settings

        def headers(self) -> Mapping[str, str]:
            raise SignInError("as it says itself")

        def refused(self, headers: Mapping[str, str]) -> bool:
            return True

        def secrets(self) -> tuple[str, ...]:
            return ("s",)

    make = guarded(Counted, "acme", "counted")
    source = make({"a": "1"})
    assert isinstance(source, TokenSource)
    assert make({"a": "1"}) is source and make({"a": "2"}) is not source
    assert (source.refused({}), source.secrets()) == (True, ("s",))
    with pytest.raises(SignInError, match="as it says itself"):
        source.headers()
