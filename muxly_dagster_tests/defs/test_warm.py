"""Which processes start runs warm, and that what is imported beforehand can be copied."""

import subprocess
import sys
from pathlib import Path

from muxly_dagster.defs import warm

_PRELOADED = """
import os, sys, threading
import muxly_dagster.defs.preloaded
missing = [name for name in muxly_dagster.defs.preloaded._NAMES if name not in sys.modules]
assert not missing, missing
assert threading.active_count() == 1, threading.enumerate()
assert "muxly_dagster.definitions" not in sys.modules, "no project is loaded beforehand"
"""

_CHILD = """
import multiprocessing, sys
from muxly_dagster.defs import warm

def told(queue):
    queue.put(warm.is_code_server(sys.argv))

if __name__ == "__main__":
    sys.argv = ["dagster", "api", "grpc", "--socket", "/tmp/s"]
    assert warm.is_code_server(sys.argv)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    run = context.Process(target=told, args=(queue,))
    run.start()
    assert queue.get(timeout=60) is False, "a run has the arguments of its server, and starts no runs"
    run.join()
"""


def test_only_dagsters_code_server_starts_runs() -> None:
    assert warm.is_code_server(["/x/dagster/__main__.py", "api", "grpc", "--lazy-load-user-code"])
    for other in (["dagster", "job", "execute"], ["dagster", "code-server", "start"], ["muxly", "run"], ["pytest"], []):
        assert not warm.is_code_server(other)


def test_a_run_is_no_code_server_although_it_has_the_same_arguments(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(_CHILD)
    subprocess.run([sys.executable, str(script)], check=True, timeout=120)


def test_what_is_imported_beforehand_is_there_and_runs_no_thread() -> None:
    subprocess.run([sys.executable, "-c", _PRELOADED], check=True, timeout=120)
