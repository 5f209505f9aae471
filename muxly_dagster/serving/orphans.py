"""Runs whose process ended with the code server that started it: nobody else would ever say that they failed."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

_GRPC_INFO = ".dagster/grpc_info"
"""The tag in which Dagster's launcher keeps which code server a run was started by (dagster._core.storage.tags, 1.13)."""

_WHAT = "The process of this run ended with the code server that had started it. What was stored until then stays; run it again to go on."


def fail_orphans(instance: "dg.DagsterInstance", of_server: Callable[[str, int], bool]) -> list[str]:
    """Mark as failed what a code server that runs no more had started; answers the ids of these runs.

    `of_server` says of a host and port whether it was one of those. Call it only while none of them runs.
    """
    import dagster as dg  # slow to import

    under_way = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    failed = []
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=under_way)):
        address = _address(run.tags.get(_GRPC_INFO, ""))
        if address is None or not of_server(*address):
            continue
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, _WHAT)
        else:
            instance.report_run_failed(run, _WHAT)
        failed.append(run.run_id)
    return failed


def _address(info: str) -> tuple[str, int] | None:
    try:
        found = json.loads(info)
        return str(found["host"]), int(found.get("port") or 0)
    except (ValueError, KeyError, TypeError):
        return None
