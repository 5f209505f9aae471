"""What a process imports that is copied for every child of a test: whatever a child would have to import before it can begin.

It is imported by the fork server of `multiprocessing` (conftest.py) and by the warm process of the command (cli/warm.py). What is not named
here is imported by the child that needs it, as ever.
"""

import gc
import importlib

_NAMES = (
    "dagster._core.execution.execute_in_process",
    "dagster._core.instance.factory",
    "deltalake.fs",
    "muxly_dagster.connectors.files",
    "muxly_dagster.connectors.sql",
    "muxly_dagster.defs.preloaded",
    "muxly_dagster.destinations.database",
    "muxly_dagster.destinations.file",
    "muxly_dagster.destinations.s3.amazon",
    "muxly_dagster.destinations.webhook",
    "muxly_dagster.diagnosing",
    "muxly_dagster.runtime",
    "muxly_dagster.serving.home",
    "muxly_dagster.testing",
    "muxly_dagster.trying",
    "psycopg",
    "pyarrow.csv",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "rich.table",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "sqlglot.dialects.duckdb",
    "sqlglot.generators.duckdb",
    "sqlglot.parsers.duckdb",
    "typer._adapters",
    "typer.rich_utils",
    "upath",
)

for _name in _NAMES:
    importlib.import_module(_name)
gc.collect()
gc.freeze()  # a child looks through what it makes itself, and shares the rest
