"""`muxly dev` as a test starts it: its log, its addresses, and what of it is left."""

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from muxly_dagster_tests.cli.command import COMMAND, clean_environ

PATIENCE = 240.0
"""Seconds until a condition that does not come true fails its test: far more than it takes on a machine that is busy."""


@dataclass
class Started:
    """A supervisor and all it wrote. `mark` is in the environment of everything that it starts."""

    process: "subprocess.Popen[bytes]"
    log: Path
    mark: str

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8")

    def address(self, name: str) -> str:
        """An address of those it opens with."""
        found = re.search(rf"{name}: +(\S+)", self.said)
        assert found, self.said
        return found[1]

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for something to come true; answers what it was."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert self.process.poll() is None, f"it has ended: {self.said}"
            assert time.monotonic() < deadline, f"{what}: {self.said}"
            time.sleep(0.2)
        return found

    def until_said(self, text: str, times: int = 1) -> None:
        self.until(lambda: self.said.count(text) >= times, f"{text!r} is not said")

    def child(self, words: str) -> int:
        """The process id of the one whose command line has these words."""
        [found] = [pid for pid, command in self.processes().items() if words in command]
        return found

    def processes(self) -> dict[int, str]:
        """Command lines of everything that bears its mark, by process id."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (place / "environ").read_bytes().split(b"\0"):
                    found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return found

    def ends(self) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(PATIENCE)


@contextmanager
def started(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> Iterator[Started]:
    """Run `muxly ARGUMENTS` in a folder as a background job of a shell has it: with SIGINT ignored. It is ended with the block."""
    log = folder / "muxly.log"
    mark = f"MUXLY_TEST_MARK={folder}"
    environment = clean_environ() | {"MUXLY_TEST_MARK": str(folder), "PYTHONWARNINGS": "ignore"} | dict(environ or {})
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *COMMAND, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    found = Started(process, log, mark)
    try:
        yield found
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def asked(url: str, query: str) -> Any:
    """What Dagster's GraphQL answers; None while it is not up."""
    try:
        answer = httpx.post(f"{url}/graphql", json={"query": query}, timeout=60)
        return answer.json().get("data") if answer.status_code == 200 else None
    except httpx.HTTPError:
        return None


def assets(url: str) -> list[str]:
    """The assets that the UI at this address shows."""
    found = asked(url, "{repositoriesOrError {... on RepositoryConnection {nodes {assetNodes {assetKey {path}}}}}}")
    nodes = found["repositoriesOrError"].get("nodes", []) if found else []
    return ["/".join(asset["assetKey"]["path"]) for node in nodes for asset in node["assetNodes"]]
