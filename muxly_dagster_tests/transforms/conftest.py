"""Runs one step over rows in the sandbox, as a transform would."""

from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from muxly_dagster import sandbox
from muxly_dagster.transform import Step

Apply = Callable[[Step, pa.Table], pa.Table]


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with sandbox.connect() as opened:
        yield opened


@pytest.fixture
def apply(connection: duckdb.DuckDBPyConnection) -> Apply:
    """What a step makes of rows."""

    def run(step: Step, rows: pa.Table) -> pa.Table:
        connection.register("given", rows)
        with sandbox.explained("test"):
            result: Any = connection.sql(step.sql("given", rows.schema)).to_arrow_table()
        return result

    return run
