"""A code server that has lost the process with the project ends; one that has another one goes on."""

import subprocess
import sys
from pathlib import Path

from muxly_dagster_tests.serving.supervise import PATIENCE

ROOT = Path(__file__).parents[2]

PARENT = """
import subprocess, threading, time
from muxly_dagster.serving.code_server import end_without_children
old = subprocess.Popen(["sleep", "1000"])
threading.Thread(target=end_without_children, daemon=True).start()
for _ in range(2):
    input()
    new = subprocess.Popen(["sleep", "1000"])
    old.kill()
    print("ended:", old.wait(), flush=True)
    old = new
input()
old.kill()
print("ended:", old.wait(), flush=True)
time.sleep(1000)
"""


def test_it_ends_once_it_has_no_process_that_holds_the_project() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdin and parent.stdout and parent.stderr
        try:
            for _ in range(3):  # two that are followed by another one, as reloads are, and one that is not
                assert parent.poll() is None
                parent.stdin.write("next\n")
                parent.stdin.flush()
                assert parent.stdout.readline() == "ended: -9\n", "what ended is still told to whoever started it"
            assert parent.wait(PATIENCE) == 1
            assert "the process that has the project loaded has ended" in parent.stderr.read()
        finally:
            parent.kill()
