"""`muxly serve`: who may listen where, several processes on one port, requests that are finished, and what is prepared."""

import os
import re
import signal
import socket
from pathlib import Path

import httpx
import pytest

from muxly_dagster_tests.cli.command import Muxly
from muxly_dagster_tests.cli.started import PATIENCE, started

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to see what is left behind")

PROJECT = """
sources: {app: {connector: collector, pulls: [signups]}}
jobs: {hooked: {select: [app], webhook: {scheme: bearer, secret: "a-long-secret-for-tests"}}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "muxly.yaml").write_text(PROJECT, "utf-8")
    return tmp_path


def test_with_nothing_to_sign_in_with_the_api_stays_on_this_machine(project: Path) -> None:
    done = Muxly(project)("serve", "api", "--host", "0.0.0.0", "--port", "0")

    assert done.code == 2
    assert "neither an admin token nor a write key, so the API listens on this machine only" in done.err
    assert "set MUXLY_ADMIN_TOKEN" in done.err


def test_with_a_token_others_reach_it_and_must_sign_in(project: Path) -> None:
    environ = {"MUXLY_ADMIN_TOKEN": "a-token-of-this-test-4711"}
    with started(project, "serve", "api", "--host", "0.0.0.0", "--port", "0", environ=environ) as api:
        api.until_said("API: ")
        url = api.address("API")
        assert httpx.get(f"{url}/v1/diagnostics", timeout=60).status_code == 401
        page = httpx.get(f"{url}/diagnostics", timeout=60)
        assert (page.status_code, page.headers["www-authenticate"].partition(" ")[0]) == (401, "Basic")
        page = httpx.get(f"{url}/diagnostics?offline=true", auth=("anybody", environ["MUXLY_ADMIN_TOKEN"]), timeout=120)
        assert page.status_code == 200
        assert environ["MUXLY_ADMIN_TOKEN"] not in page.text + api.said
        api.process.send_signal(signal.SIGTERM)
        assert api.ends() == 0


def test_several_processes_share_a_port_and_one_that_dies_is_replaced(project: Path) -> None:
    with started(project, "serve", "api", "--workers", "2", "--port", "0") as api:
        api.until_said("2 processes")
        assert "the API answers this machine only" in api.said
        url = api.address("API")
        workers = {pid for pid, command in api.processes().items() if "serve api --fd" in command}
        assert len(workers) == 2
        os.kill(min(workers), signal.SIGKILL)
        for _ in range(10):
            assert httpx.get(f"{url}/healthz", timeout=60).status_code == 200
        api.until_said("is up again")
        api.process.send_signal(signal.SIGINT)
        assert api.ends() == 0
        assert api.processes() == {}


def test_a_request_that_is_under_way_is_finished(project: Path) -> None:
    with started(project, "serve", "api", "--port", "0") as api:
        api.until_said("API: ")
        port = int(api.address("API").rpartition(":")[2])
        body = b'{"id": "s-1", "email": "ada@example.com"}'
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as slow:
            head = "POST /v1/collect/app/signups HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            slow.sendall(f"{head}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
            assert slow.recv(1000).startswith(b"HTTP/1.1 100"), "the API has begun to read it"
            slow.sendall(body[:10])
            api.process.send_signal(signal.SIGTERM)
            api.until(lambda: refused(port), "nobody new is let in")
            slow.sendall(body[10:])
            assert slow.recv(1000).startswith(b"HTTP/1.1 202")
        assert api.ends() == 0


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_is_prepared_says_where_to_post(project: Path) -> None:
    done = Muxly(project)("serve", "prepare", "--json")

    assert done.code == 0
    assert done.json["collect"] == ["/v1/collect/app/signups"]
    assert done.json["hooks"] == ["/v1/hooks/hooked"]
    assert re.match(r"made .*dagster", done.json["done"][0])
    assert (project / ".muxly" / "state.db").is_file()
    again = Muxly(project)("serve", "prepare")
    assert again.code == 0
    assert again.err.strip().splitlines() == [f"{project / 'muxly.yaml'} is ready to be served"]


def test_prepare_tells_every_mistake_with_its_place(project: Path) -> None:
    (project / "muxly.yaml").write_text(PROJECT.replace("collector", "colector").replace("[app]", "[ap]"), "utf-8")
    done = Muxly(project)("serve", "prepare")

    assert done.code == 2
    assert "muxly.yaml:2:" in done.err
    assert "muxly.yaml:3:" in done.err


def test_a_code_server_and_a_daemon_run_by_themselves(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {"MUXLY_CODE_SERVER": f"127.0.0.1:{port}"}
    with started(project, "serve", "code", "--port", str(port)) as code:
        code.until_said("Started Dagster code proxy server")
        refused_again = Muxly(project)("serve", "code", "--port", str(port))
        assert (refused_again.code, "address already in use" in refused_again.err) == (2, True)
        (project / "daemon").mkdir()
        with started(project / "daemon", "serve", "daemon", environ=environ) as daemon:
            daemon.until_said("muxly_inbox")
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.ends() == 0
        code.process.send_signal(signal.SIGTERM)
        assert code.ends() == 0
