"""The generated parts of README and docs: they are what is declared now, and nothing else of a page is touched. What is proven is."""

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, Field

from docs import tables
from muxly_dagster import catalog
from muxly_dagster.auth import ApiKey, Bearer
from muxly_dagster.destination import Destination
from muxly_dagster.manifest.connector import load_manifest
from muxly_dagster.testing import MemoryDestination


def a_page(folder: Path, name: str, *parts: str) -> Path:
    page = folder / name
    page.parent.mkdir(exist_ok=True)
    said = "".join(f"Before.\n\n<!-- generated: {part} -->\nwhat was there\n<!-- end -->\n\nBehind.\n" for part in parts)
    page.write_text(said, "utf-8")
    return page


@pytest.mark.parametrize("page", tables.pages(), ids=lambda page: page.name)
def test_every_page_says_what_is_declared_now(page: Path) -> None:
    assert tables.written(page) == page.read_text("utf-8"), "run make tables"


def test_the_readme_and_the_connectors_page_have_every_connector() -> None:
    for page, folder in ((tables.ROOT / "README.md", "docs/connectors"), (tables.ROOT / "docs" / "connectors.md", "connectors")):
        text = page.read_text("utf-8")
        assert [name for name in catalog.connector_names() if f"| [`{name}`]({folder}/{name}.md) |" not in text] == []


def test_the_readme_and_the_destinations_page_have_every_destination() -> None:
    for page, folder in ((tables.ROOT / "README.md", "docs/destinations"), (tables.ROOT / "docs" / "destinations.md", "destinations")):
        text = page.read_text("utf-8")
        assert [name for name in catalog.destination_names() if f"| [`{name}`]({folder}/{name}.md) |" not in text] == []


def test_the_destinations_page_has_what_every_destination_may_say() -> None:
    text = (tables.ROOT / "docs" / "destinations.md").read_text("utf-8")
    section = text[text.index("## What every destination may say") : text.index("## What is guaranteed")]
    inner = [f"{name}.{field}" for name, kind in _policies().items() for field in _names(kind)]
    assert [name for name in [*Destination.model_fields, *inner] if f"| `{name}` |" not in section] == []
    assert {"batching.bytes", "window.from", "breaker.longest"} <= set(inner)


def _policies() -> Mapping[str, Any]:
    """The fields of every destination that hold a model, each with its model."""
    found = {name: [info.annotation, *getattr(info.annotation, "__args__", ())] for name, info in Destination.model_fields.items()}
    return {name: kind for name, kinds in found.items() for kind in kinds if hasattr(kind, "model_fields")}


def _names(kind: Any) -> list[str]:
    return [info.alias or name for name, info in kind.model_fields.items()]


# ---- what is guaranteed, and which test proves it --------------------------------------------------------------------

_ROW = re.compile(
    r"^\| \[`(?P<type>\w+)`\]\(destinations/(?P=type)\.md\) \| (?P<said>[^|]+) \| (?P<how>[^|]+) \| (?P<proof>[^|]+) \|$", re.M
)
_TEST = re.compile(r"`muxly_dagster_tests/([\w/]+)\.py((?:::\w+)+)`")


def guarantees() -> dict[str, re.Match[str]]:
    """The rows of the table of guarantees by type, whatever else is on the page."""
    text = (tables.ROOT / "docs" / "destinations.md").read_text("utf-8")
    begins = text.index("## What is guaranteed")
    return {row["type"]: row for row in _ROW.finditer(text, begins, text.index("\n## ", begins + 1))}


@pytest.mark.parametrize("name", catalog.destination_names())
def test_what_a_destination_guarantees_is_said_and_proven(name: str) -> None:
    rows = guarantees()
    assert name in rows, f"docs/destinations.md, What is guaranteed: {name} has no row"
    said = rows[name]
    assert said["said"] == catalog.destination_class(name).guarantee
    proofs = _TEST.findall(said["proof"])
    assert proofs and not _TEST.sub("", said["proof"]).strip(" ,"), "a proof is `muxly_dagster_tests/FILE.py::TEST`, one or several"
    assert [f"{file}.py{test}" for file, test in proofs if not is_a_test(file, test)] == []


def is_a_test(file: str, test: str) -> bool:
    """Whether pytest would find it, in a class that may have inherited it too."""
    try:
        found: Any = importlib.import_module("muxly_dagster_tests." + file.replace("/", "."))
    except ModuleNotFoundError:
        return False
    for name in test.split("::")[1:]:
        found = getattr(found, name, None)
    return callable(found) and test.rpartition("::")[2].startswith("test_")


def test_a_proof_that_does_not_exist_is_found_out() -> None:
    assert is_a_test("docs/test_tables", "::test_a_proof_that_does_not_exist_is_found_out")
    assert is_a_test("destinations/test_webhook", "::TestSingle::test_a_repeated_delivery_changes_nothing")
    for file, test in (("docs/test_tables", "::test_nothing"), ("docs/nowhere", "::test_x"), ("docs/test_tables", "::a_page")):
        assert not is_a_test(file, test)


def test_no_guarantee_is_given_for_what_is_not_there() -> None:
    assert [name for name in guarantees() if name not in catalog.destination_names()] == []


# ---- how pages are written -------------------------------------------------------------------------------------------


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = a_page(tmp_path, "connectors/sql.md")
    page.write_text("Nothing to write here.\n", "utf-8")
    assert tables.written(page) == "Nothing to write here.\n"


def test_only_what_stands_between_the_marks_is_written(tmp_path: Path) -> None:
    text = tables.written(a_page(tmp_path, "connectors/sql.md", "fields"))
    assert "what was there" not in text
    assert text.startswith("Before.\n\n<!-- generated: fields -->\n| Field | Type | Default | Meaning |\n|")
    assert text.endswith("|\n<!-- end -->\n\nBehind.\n")
    assert "| `url` | secret | required | postgresql://" in text


def test_an_unknown_part_is_no_part(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="feilds"):
        tables.written(a_page(tmp_path, "connectors/sql.md", "feilds"))


def test_every_part_of_a_connectors_page_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = tmp_path / "shop.yaml"
    said = {
        "muxly": 1,
        "id": "shop",
        "version": "1",
        "title": "Shop",
        "hosts": ["example.com"],
        "base_url": "https://example.com",
        "api_version": {"version": "7", "sunset": "2031-05-01"},
        "auth": ["bearer", "api_key"],
        "config": {"words": {"default": "a|b", "title": "Words | phrases"}},
        "limits": [{"requests": 100, "window": 10, "path": "/search/*"}],
        "streams": {"orders": {"request": {"path": "/orders"}, "key": ["id"], "description": "What was bought."}},
    }
    manifest.write_text(yaml.safe_dump(said), "utf-8")
    monkeypatch.setattr(catalog, "connector_class", lambda name, folder=Path(): load_manifest(manifest))

    text = tables.written(a_page(tmp_path, "connectors/shop.md", "fields", "pull", "auth", "streams", "limits", "actions", "template"))

    for line in (
        "| `auth` | bearer, api_key | required | How to sign in: bearer or api_key. |",
        "| `words` | text | `a\\|b` | Words \\| phrases |",
        "| `bearer` | `token` | A token sent as `Authorization: Bearer ...` (RFC 6750). |",
        "| `orders` | `id` | full | yes | What was bought. |",
        "- 100 requests per 10 s for /search/*",
        "- Version 7 of the API is spoken; it ends on 2031-05-01.",
        "  shop:",
    ):
        assert f"{line}\n" in text
    assert "what was there" not in text


@pytest.mark.parametrize("name", catalog.destination_names())
def test_every_part_of_a_destinations_page_can_be_written(name: str, tmp_path: Path) -> None:
    text = tables.written(a_page(tmp_path, f"destinations/{name}.md", "fields", "auth", "template"))
    kind = catalog.destination_class(name)
    own = [info.alias or field for field, info in kind.model_fields.items() if field not in Destination.model_fields]
    assert [field for field in own if f"\n| `{field}` | " not in text] == []
    assert "`on_error` |" not in text, "what every destination may say stands on a page of its own"
    assert f"```yaml muxly\n{kind.config_template(name)}```\n" in text
    assert "what was there" not in text


class Pause(BaseModel):
    """How long to wait."""

    seconds: int = Field(1, description="How long.")


class Pipe(MemoryDestination):
    """A pipe."""

    auth: Bearer | ApiKey = Field(description="How to sign in.")
    pause: Pause = Field(Pause(seconds=7), description="How it rests.")
    colour: Literal["red", "green"] = Field("red", description="red | green")


def test_fields_within_a_field_have_the_defaults_of_that_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "destination_class", lambda name: Pipe)
    text = tables.written(a_page(tmp_path, "destinations/pipe.md", "fields", "auth"))
    for line in (
        "| `auth` | bearer, api_key | required | How to sign in. |",
        "| `pause` | map | | How it rests. |",
        "| `pause.seconds` | whole number | `7` | How long. |",
        "| `colour` | red, green | `red` | red \\| green |",
        "| `bearer` | `token` | A token sent as `Authorization: Bearer ...` (RFC 6750). |",
    ):
        assert f"\n{line}\n" in text


def test_checking_says_which_page_is_out_of_date_and_writing_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = a_page(tmp_path, "connectors/files.md", "template")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "pages", lambda: [page])

    assert tables.main(["--check"]) == 1
    assert capsys.readouterr().out == "connectors/files.md is out of date: run make tables\n"
    assert "what was there" in page.read_text("utf-8")
    assert tables.main([]) == 0
    assert "```yaml muxly\nsources:\n  files:" in page.read_text("utf-8")
    assert tables.main(["--check"]) == 0
