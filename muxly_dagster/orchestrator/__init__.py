"""Dagster as the rest of the house sees it: start runs, list and show them, cancel, retry, follow, reload the project."""

from muxly_dagster.orchestrator.orchestrator import Orchestrator, Run, RunEvent

__all__ = ["Orchestrator", "Run", "RunEvent"]
