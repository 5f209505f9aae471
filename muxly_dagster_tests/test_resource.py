"""Paths and SQLite addresses that a project says begin at its folder."""

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from muxly_dagster.assembly import load_assembly
from muxly_dagster.connectors.files import Files
from muxly_dagster.destinations.file import File
from muxly_dagster.project_paths import InProject, in_project


class Place(BaseModel):
    """A model with marked fields, one of them under an alias, and one that is not marked."""

    path: Annotated[str, InProject()] = ""
    url_: Annotated[SecretStr, InProject()] = Field(SecretStr(""), alias="url")
    text: str = ""


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("out", "/a b/100%/out"),
        ("./out", "/a b/100%/out"),
        ("../out", "/a b/100%/../out"),
        ("/out", "/out"),
        ("", ""),
        ("~/out", str(Path.home() / "out")),
        ("sqlite:///w.db", "sqlite:////a%20b/100%25/w.db"),
        ("duckdb:///w.duckdb", "duckdb:////a%20b/100%25/w.duckdb"),
        ("sqlite:///./data/w.db?mode=ro", "sqlite:////a%20b/100%25/data/w.db?mode=ro"),
        ("sqlite:////w.db", "sqlite:////w.db"),
        ("sqlite:///~/w.db", "sqlite:///~/w.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite:///", "sqlite:///"),
        ("postgresql://me:pw@host/db", "postgresql://me:pw@host/db"),
        ("s3://bucket/out", "s3://bucket/out"),
    ],
)
def test_a_relative_place_begins_at_the_folder(said: str, meant: str) -> None:
    values = {"path": said, "url": said, "text": said, "more": said}

    assert in_project(Place, values, Path("/a b/100%")) == {"path": meant, "url": meant, "text": said, "more": said}


def test_what_is_no_text_is_left_to_the_model() -> None:
    assert in_project(Place, {"path": 5, "url": None}, Path("/a")) == {"path": 5, "url": None}


def test_sources_destinations_and_routes_of_a_project_know_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "muxly.yaml").write_text(
        """
        sources: {shop: {connector: files, path: ./data, pulls: [orders]}}
        routes: {r: {from: shop.orders, to: [files, {more: {path: ./elsewhere}}]}}
        destinations: {files: {type: file, path: ./out}, more: {type: file, path: /absolute}}
        """,
        "utf-8",
    )
    monkeypatch.chdir(tmp_path)
    assembly = load_assembly(Path("shop/muxly.yaml"), {})

    source = assembly.sources["shop"]
    assert isinstance(source, Files)
    assert source.path == str(tmp_path / "shop" / "data")
    places = [target.destination.path for target in assembly.targets.values() if isinstance(target.destination, File)]
    assert places == [str(tmp_path / "shop" / "out"), str(tmp_path / "shop" / "elsewhere")]


def test_the_key_file_of_a_service_account_begins_at_the_projects_folder(tmp_path: Path) -> None:
    (tmp_path / "muxly.yaml").write_text(
        "sources: {a: {connector: ga4, property: 1, auth: {kind: service_account, key_file: ./key.json}, pulls: [traffic]}}", "utf-8"
    )
    source: Any = load_assembly(tmp_path / "muxly.yaml", {}).sources["a"]
    assert source.auth.key_file == str(tmp_path / "key.json")
