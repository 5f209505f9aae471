"""Manifest connectors keep the promises of every connector, whichever way they find what is new."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from muxly_dagster.manifest.connector import load_manifest
from muxly_dagster.testing.connectors import ConnectorContract
from muxly_dagster_tests.peers.notes import Notes, NotesProvider

NOTES = Path(__file__).parent / "notes.yaml"


class TestDeltaWithASeed(ConnectorContract):
    """Deleted records are named beside the others; a token of its own, taken before the full pull."""

    expires = True

    @pytest.fixture
    def provider(self) -> Iterator[NotesProvider]:
        with Notes() as api:
            yield NotesProvider(api, "seeded", load_manifest(NOTES))


class TestDeltaByPages(ConnectorContract):
    """Deleted records carry a mark; the full pull's own pages carry the token."""

    expires = True

    @pytest.fixture
    def provider(self) -> Iterator[NotesProvider]:
        with Notes() as api:
            yield NotesProvider(api, "tree", load_manifest(NOTES))


class TestCursorWithAKeyset(ConnectorContract):
    """Windows of a cursor, read past a cap on results; deleted records have a list of their own."""

    @pytest.fixture
    def provider(self) -> Iterator[NotesProvider]:
        with Notes(cap=3) as api:
            yield NotesProvider(api, "searched", load_manifest(NOTES))
