"""Dagster as the rest of the house sees it: start runs, list and show them, cancel, retry, follow, reload the project."""

from muxly_dagster.orchestrator.dagster_private import LOCATION
from muxly_dagster.orchestrator.orchestrator import Orchestrator
from muxly_dagster.orchestrator.run import ENDED, Lines, Materialization, Run, RunEvent, Status

__all__ = ["ENDED", "LOCATION", "Lines", "Materialization", "Orchestrator", "Run", "RunEvent", "Status"]
