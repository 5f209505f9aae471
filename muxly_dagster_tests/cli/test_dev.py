"""`muxly dev`: the UI comes up on the project, and one signal ends everything that was started."""

import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from muxly_dagster_tests.cli.command import COMMAND, Muxly, clean_environ

PROJECT = "sources: {shop: {connector: files, path: ./data, pulls: [orders]}}\n"
QUERY = "{repositoriesOrError {... on RepositoryConnection {nodes {assetNodes {assetKey {path}}}}}}"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "muxly.yaml").write_text(PROJECT, "utf-8")
    return tmp_path


def assets(url: str) -> list[str]:
    """The assets that the UI at this address shows; none while it is not up."""
    try:
        answer = httpx.post(f"{url}/graphql", json={"query": QUERY}, timeout=30).json()
    except httpx.HTTPError:
        return []
    return ["/".join(asset["assetKey"]["path"]) for node in answer["data"]["repositoriesOrError"]["nodes"] for asset in node["assetNodes"]]


def processes_of(folder: Path) -> list[str]:
    """The command lines of processes whose environment names this project."""
    wanted = f"MUXLY_PROJECT={folder / 'muxly.yaml'}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to see what is left behind")
def test_it_serves_the_project_and_leaves_no_process_behind(project: Path) -> None:
    command = [*COMMAND, "dev", "--port", "0"]
    with (
        (project / "log").open("wb") as log,
        subprocess.Popen(command, cwd=project, env=clean_environ(), stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + 150
            shown: list[str] = []
            while not shown and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.5)
                said = (project / "log").read_text("utf-8")
                if "Dagster UI: " in said:
                    shown = assets(said.partition("Dagster UI: ")[2].split()[0])
            assert shown == ["shop/orders"], (project / "log").read_text("utf-8")
            assert len(processes_of(project)) >= 3
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
        finally:
            if process.poll() is None:
                process.terminate()
    assert processes_of(project) == []
    assert "Traceback" not in (project / "log").read_text("utf-8")


def test_a_port_that_is_taken_is_told_before_anything_starts(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = Muxly(project)("dev", "--port", str(taken.getsockname()[1]))

    assert done.code == 2
    assert "address already in use" in done.err
    assert "--port" in done.err
