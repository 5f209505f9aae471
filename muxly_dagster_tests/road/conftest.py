"""A road of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from muxly_dagster_tests.road.lane import Road


@pytest.fixture
def road(tmp_path: Path) -> Iterator[Road]:
    road = Road(tmp_path)
    yield road
    road.state.close()
