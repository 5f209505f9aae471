"""What the tests of plugins share."""

from pathlib import Path

import pytest

from muxly_dagster_tests.plugins.shelf import Shelf


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A place where distributions are installed for one test."""
    shelf = Shelf(tmp_path / "site-packages")
    monkeypatch.syspath_prepend(str(shelf.folder))
    return shelf
