"""The example of `docs/operating.md` for a proxy: a real nginx before a real API, with nothing changed but its names and ports."""

import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from muxly_dagster_tests.cli.started import Started, started
from muxly_dagster_tests.peers.certificate import Certificate
from muxly_dagster_tests.peers.prometheus import until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or ""
PAGE = Path(__file__).parents[2] / "docs" / "operating.md"
PROJECT = """
sources: {app: {connector: collector, pulls: [signups]}}
jobs: {hooked: {select: [app], webhook: {scheme: bearer, secret: "a-long-secret-for-tests"}}}
"""
TOKEN = "a-token-of-this-test-4711"

pytestmark = pytest.mark.skipif(not NGINX, reason="there is no nginx (Debian's package nginx-light)")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("behind")
    (folder / "muxly.yaml").write_text(PROJECT, "utf-8")
    environ = {"MUXLY_ADMIN_TOKEN": TOKEN, "MUXLY_PUBLIC_URL": "https://events.example.com"}
    with started(folder, "serve", "api", "--behind", "127.0.0.1", "--port", "0", environ=environ) as found:
        found.until_said("API: ")
        yield found


@pytest.fixture(scope="module")
def client(api: Started, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of nginx, which it reaches at `events.example.com`."""
    folder = tmp_path_factory.mktemp("nginx")
    certificate = Certificate.made(folder, "events.example.com")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = re.search(r"^```nginx\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert said
    server = said[1].replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;").replace("http://127.0.0.1:8000", api.address("API"))
    places = "".join(f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; {places} ssl_certificate {certificate.cert}; ssl_certificate_key {certificate.key};\n{server}}}\n"
    )
    with subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]) as process:
        try:
            trusting = ssl.create_default_context(cafile=certificate.cert)
            with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusting, headers={"host": "events.example.com"}) as found:
                found.event_hooks = {"request": [_named]}
                until(lambda: process.poll() is not None or _answers(port), "nginx")
                assert process.poll() is None, (folder / "error.log").read_text()
                yield found
        finally:
            process.terminate()


def test_it_is_alive_and_asks_for_the_token(client: httpx.Client) -> None:
    assert client.get("/healthz").status_code == 200
    assert client.get("/v1/sources").status_code == 401
    assert client.get("/v1/sources", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_nobody_counts_as_this_machine_and_a_key_lets_events_in(client: httpx.Client) -> None:
    assert client.post("/v1/collect/app/signups", json={"id": "1"}).status_code == 401
    made = client.post("/v1/keys", json={"source": "app"}, headers={"authorization": f"Bearer {TOKEN}"})
    assert made.status_code == 201
    key = {"authorization": f"Bearer {made.json()['key']}"}
    receipts = [client.post("/v1/collect/app/signups", json={"id": id}, headers=key) for id in ("1", "2", "2")]
    assert [each.status_code for each in receipts] == [202] * 3
    assert [(each.json()["accepted"], each.json()["duplicate"]) for each in receipts] == [(1, 0), (1, 0), (0, 1)]
    many = client.post("/v1/collect/app/signups", content=iter([b'{"id": "3"}\n', b'{"id": "4"}\n']), headers=key)
    assert many.json()["accepted"] == 2


def test_a_webhook_comes_through(client: httpx.Client) -> None:
    assert client.post("/v1/hooks/hooked", json={"a": 1}).status_code == 401
    called = client.post("/v1/hooks/hooked", json={"a": 1}, headers={"authorization": "Bearer a-long-secret-for-tests"})
    assert called.status_code == 202


def _named(request: httpx.Request) -> None:
    """The name that TLS asks for, whatever the address is."""
    request.extensions["sni_hostname"] = "events.example.com"


def _answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0
