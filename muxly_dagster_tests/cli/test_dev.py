"""`muxly dev`: one start of the demo for all it promises, and one that is killed."""

import os
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from muxly_dagster_tests.cli import warm
from muxly_dagster_tests.cli.command import ROOT, Muxly, clean_environ
from muxly_dagster_tests.cli.started import Started, asked, assets, started

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to see what is left behind")

PROJECT = "sources: {shop: {connector: files, path: ./data, pulls: [orders]}}\n"
COMMANDS = re.compile(r"^```console dev\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MATERIALIZED = (
    '{assetNodeOrError(assetKey: {path: ["signups_out", "signup_files"]}) '
    "{... on AssetNode {assetMaterializations(limit: 1) {runId metadataEntries {label}}}}}"
)


@pytest.mark.timeout(900)
def test_the_demo_is_served_changed_hurt_and_stopped(tmp_path: Path) -> None:
    with started(tmp_path, "dev", "--demo", "--port", "0", "--api-port", "0") as dev:
        dev.until_said("Ready after")
        ui, api = dev.address("Dagster UI"), dev.address("API")
        everything_answers(dev, ui, api)
        getting_started_holds(dev, tmp_path, ui, api)
        a_mistake_is_told_and_the_version_before_goes_on(dev, tmp_path / ".demo" / "muxly.yaml", ui, api)
        a_sound_change_is_loaded(dev, tmp_path / ".demo" / "muxly.yaml", ui, api)
        a_killed_api_comes_back_and_callers_wait(dev, api)
        a_second_one_on_the_same_home_is_refused(tmp_path)
        dev.process.send_signal(signal.SIGINT)
        assert dev.ends() == 0
        assert dev.processes() == {}
    assert dev.said.endswith("muxly  │ stopped\n")
    assert "Traceback" not in dev.said


def everything_answers(dev: Started, ui: str, api: str) -> None:
    """The addresses that it opens with."""
    assert {"crm/deals", "app/signups", "signups_out/signup_files"} <= set(assets(ui))
    assert dev.address("Post events") == f"{api}/v1/collect/app/signups"
    assert httpx.get(dev.address("Reference"), timeout=60).status_code == 200
    assert httpx.get(f"{api}/readyz", timeout=60).status_code == 200
    told = httpx.get(f"{api}/v1/diagnostics", timeout=120).json()
    found = {check["check"]: check for check in told["checks"]}
    for name in (
        "project",
        "state database",
        "lake",
        "dagster home",
        "code location",
        "code server",
        "source crm",
        "destination warehouse",
    ):
        assert found[name]["status"] == "ok", found[name]
    page = httpx.get(dev.address("Diagnostics"), timeout=120)
    assert page.headers["content-type"].startswith("text/html")
    assert "state database" in page.text
    assert re.findall(r'(?:src|href)="(?!/)', page.text) == []
    for secret in ("demo-crm-token", "demo-billing-key"):
        assert secret not in page.text + str(told)


def getting_started_holds(dev: Started, folder: Path, ui: str, api: str) -> None:
    """Every command of the page that is about `make dev`, in the order in which it is given, with the ports of this test."""
    text = (ROOT / "docs" / "getting-started.md").read_text("utf-8")
    commands = [line.removeprefix("$ ") for block in COMMANDS.findall(text) for line in block.splitlines() if line.startswith("$ ")]
    assert len(commands) >= 4
    said = {command: dev.until(lambda command=command: output(command, folder, ui, api), command) for command in commands}
    [delivered] = [text for command, text in said.items() if command.startswith("cat ")]
    assert '"ada@example.com"' in delivered
    made = dev.until(lambda: materializations(ui), "the delivery is in the Dagster UI")
    assert made[0]["runId"]


def output(command: str, folder: Path, ui: str, api: str) -> str:
    """What a command writes; nothing while it fails, as one does that looks for what is still to come."""
    bin_folder = folder / "bin"
    if not bin_folder.exists():
        bin_folder.mkdir()
        (bin_folder / "muxly").write_text(f'#!/bin/sh\nexec {shlex.join(warm.command())} "$@"\n')
        (bin_folder / "muxly").chmod(0o755)
    command = command.replace("http://127.0.0.1:8000", api).replace("http://127.0.0.1:3000", ui)
    environ = clean_environ() | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)
    return (done.stdout + done.stderr or "done") if done.returncode == 0 else ""


def materializations(ui: str) -> list[Any]:
    found = asked(ui, MATERIALIZED)
    made: list[Any] = found["assetNodeOrError"].get("assetMaterializations", []) if found else []
    return made


def a_mistake_is_told_and_the_version_before_goes_on(dev: Started, project: Path, ui: str, api: str) -> None:
    sound = project.read_text("utf-8")
    project.write_text(sound.replace("connector: collector", "connector: colector"), "utf-8")
    line = next(number for number, text in enumerate(sound.splitlines(), 1) if "connector: collector" in text)
    dev.until_said("the version before goes on")
    assert re.search(rf"muxly\.yaml:{line}:\d+: sources\.app\.connector: there is no connector 'colector'", dev.said), dev.said
    assert "app/signups" in assets(ui)
    assert httpx.post(f"{api}/v1/collect/app/signups", json={"id": "s-2"}, timeout=60).status_code == 202
    project.write_text(sound, "utf-8")
    dev.until_said("loaded anew")


def a_sound_change_is_loaded(dev: Started, project: Path, ui: str, api: str) -> None:
    text = project.read_text("utf-8")
    project.write_text(text.replace("pulls: [signups]", "pulls: [signups, visits]"), "utf-8")
    dev.until_said("loaded anew", 2)
    dev.until(lambda: "app/visits" in assets(ui), "the UI shows the new asset")
    dev.until(lambda: httpx.post(f"{api}/v1/collect/app/visits", json={"id": "v-1"}, timeout=60).status_code == 202, "the API takes events")


def a_killed_api_comes_back_and_callers_wait(dev: Started, api: str) -> None:
    os.kill(dev.child("serve api"), signal.SIGKILL)
    # The socket outlives the process, so nobody is refused meanwhile.
    assert httpx.post(f"{api}/v1/collect/app/signups", json={"id": "s-3"}, timeout=120).status_code == 202
    dev.until_said("api is up again")
    assert "api was killed by SIGKILL; it is started again" in dev.said


def a_second_one_on_the_same_home_is_refused(folder: Path) -> None:
    done = Muxly(folder)("dev", "--port", "0", "--api-port", "0", MUXLY_PROJECT=str(folder / ".demo" / "muxly.yaml"))
    assert done.code == 1
    assert "another supervisor runs on" in done.err


@pytest.mark.timeout(600)
def test_one_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "muxly.yaml").write_text(PROJECT, "utf-8")
    (tmp_path / "data").mkdir()
    with started(tmp_path, "dev", "--no-web", "--no-reload", "--api-port", "0") as dev:
        dev.until_said("Ready after")
        assert "Dagster UI" not in dev.said
        assert len(dev.processes()) >= 5, "the supervisor, its sweeper, API, daemon, code server with what it started"
        dev.process.kill()
        dev.process.wait()
        deadline_of = Started(subprocess.Popen(["sleep", "600"]), dev.log, dev.mark)
        try:
            deadline_of.until(lambda: not dev.processes(), "nothing is left")
        finally:
            deadline_of.process.kill()
            deadline_of.process.wait()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "muxly.yaml").write_text(PROJECT, "utf-8")
    return tmp_path


@pytest.mark.parametrize("option", ["--port", "--api-port"])
def test_a_port_that_is_taken_is_told_before_anything_starts(project: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"--port": "0", "--api-port": "0"} | {option: str(taken.getsockname()[1])}
        done = Muxly(project)("dev", *(part for each in ports.items() for part in each))

    assert done.code == 2
    assert "address already in use" in done.err
    assert option in done.err
    assert "starting" not in done.err


def test_a_mistake_in_the_project_is_told_before_anything_starts(project: Path) -> None:
    (project / "muxly.yaml").write_text(PROJECT.replace("files", "flies"), "utf-8")
    done = Muxly(project)("dev", "--port", "0", "--api-port", "0")

    assert done.code == 2
    assert "muxly.yaml:1:29: sources.shop.connector: there is no connector 'flies'; did you mean files?" in done.err
    assert "starting" not in done.err


def test_an_address_that_others_reach_needs_something_to_sign_in_with(project: Path) -> None:
    done = Muxly(project)("dev", "--host", "0.0.0.0", "--port", "0", "--api-port", "0")

    assert done.code == 2
    assert "neither an admin token nor a write key" in done.err
    assert "set MUXLY_ADMIN_TOKEN" in done.err
