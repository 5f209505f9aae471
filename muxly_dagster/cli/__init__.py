"""The `muxly` command."""

from muxly_dagster.cli.app import main

__all__ = ["main"]
