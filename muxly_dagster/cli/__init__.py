"""The `muxly` command."""

import gc

# Dagster makes some hundred thousand objects that stay: to look for cycles among them again and again is a good part of what a short
# run costs. They are not frozen at the end, which would save one more look: DuckDB then complains of leaks on standard error.
gc.set_threshold(200_000, 20, 100)

from muxly_dagster.cli.app import main  # noqa: E402 (what it imports is what is meant)

__all__ = ["main"]
