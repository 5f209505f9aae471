"""The shop of `shop.py`, run once for the tests that only look; and one of its own for a test that changes something."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster_tests.api.shop import Shop, running


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Ran once; nothing in it may be changed."""
    with running(tmp_path_factory.mktemp("api") / "shop") as found:
        yield found


@pytest.fixture
def own_shop(tmp_path: Path) -> Iterator[Shop]:
    """Ran once, for one test alone."""
    with running(tmp_path / "shop") as found:
        yield found


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs what is to be awaited."""
    return asyncio.run
