"""Imported by the fork server of runs before any run is asked for: what each of them would import before its first step.

Nothing here starts a thread or opens a connection, which a copy of the process could not go on with.
"""

import contextlib
import importlib

_NAMES = (
    "dagster._cli",
    "dagster._grpc.impl",
    "dagster._core.execution.run_cancellation_thread",
    "dagster._core.executor.in_process",
    "dagster._core.instance.runs.run_domain",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.migration.utils",
    "dagster._core.storage.root",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.workspace.context",
    "duckdb",
    "sqlglot",
    "muxly_dagster.defs.project",
    "muxly_dagster.manifest.connector",
)
"""Dagster's as of 1.13.27; a name that is gone costs a run the time to import what took its place."""

for _name in _NAMES:
    with contextlib.suppress(Exception):
        importlib.import_module(_name)
