"""A state in each kind of database."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from muxly_dagster.state import State


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a state of its own can lie."""
    return f"sqlite:///{tmp_path}/state.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


@pytest.fixture
def state(url: str, tmp_path: Path) -> Iterator[State]:
    """A state, opened there."""
    with closing(State.open(url, tmp_path)) as found:
        yield found
