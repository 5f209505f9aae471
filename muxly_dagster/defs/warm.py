"""Runs begin in a warm process: a fork server has imported what every run needs before the first one is asked for.

Dagster's code server starts each run in a new interpreter, which is busy with imports for seconds before the first step. The standard
library's fork server holds an interpreter that has done that and nothing else, and every run is a copy of it. No project is loaded in it:
a run loads its own, as ever.
"""

import multiprocessing
import multiprocessing.forkserver
import sys
from collections.abc import Sequence

_CODE_SERVER = ["api", "grpc"]
"""How Dagster calls the process that holds the code, and starts the runs: `dagster api grpc` (dagster/_grpc/server.py, 1.13.27)."""


_LOADS_THE_PROJECT = "muxly_dagster.definitions"


def is_code_server(arguments: Sequence[str]) -> bool:
    """Whether this process is one that starts runs. A run has the arguments of the server that started it, but is its child."""
    return list(arguments[1:3]) == _CODE_SERVER and multiprocessing.parent_process() is None


def start_runs_warm() -> None:
    """Let the processes that Dagster asks `multiprocessing` to spawn be forked by a fork server, and start that beside us.

    Where Dagster comes to start runs in another way, this does nothing. The fork server ends with the process that started it.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return
    forked = multiprocessing.get_context("forkserver")
    # What this project took to load: its connectors, its destinations, the storage of its home. The project itself is not among it.
    needed = [name for name in sys.modules if name.startswith("muxly_dagster.") and name != _LOADS_THE_PROJECT]
    storage = [name for name in ("dagster_postgres",) if name in sys.modules]
    forked.set_forkserver_preload(["muxly_dagster.defs.preloaded", *storage, *needed])
    spawned = multiprocessing.get_context("spawn")
    spawned.Process = forked.Process  # type: ignore[misc, assignment]
    multiprocessing.forkserver.ensure_running()
