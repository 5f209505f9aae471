"""The generated parts of README and docs: they are what the connectors declare now, and nothing else of a page is touched."""

from pathlib import Path

import pytest
import yaml

from docs import tables
from muxly_dagster import catalog
from muxly_dagster.manifest.connector import load_manifest


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
