"""A Dagster instance and a shop for every test."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from muxly_dagster.settings import Settings
from muxly_dagster_tests.defs.shop import Basket, Shop, settings


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """Dagster's memory, forgotten after the test."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def shop_settings(tmp_path: Path) -> Settings:
    """Muxly's places, in a folder of the test's own."""
    return settings(tmp_path)


@pytest.fixture
def shop() -> Shop:
    """A shop with one big and one small order."""
    shop = Shop()
    shop._rows[:] = [{"id": 1, "amount": 50.0}, {"id": 2, "amount": 5.0}]
    return shop


@pytest.fixture
def baskets() -> dict[str, Basket]:
    """The destinations of the shop's route."""
    return {"big": Basket(), "rest": Basket()}
