"""The two transports: certificates, the fallback, and being interrupted."""

import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from muxly_dagster.errors import SourceError
from muxly_dagster.http import Http, Redaction, Request, Retries, Timeouts
from muxly_dagster.http.transport import PyreqwestTransport, open_transport
from muxly_dagster_tests.http.server import Asked, Server, json_answer
from muxly_dagster_tests.peers.certificate import Certificate

FETCH = """
import sys
if sys.argv[2] == "httpx":
    sys.modules["pyreqwest"] = None  # as where it cannot be installed
from muxly_dagster.http import Http, transport
assert transport.HAS_PYREQWEST == (sys.argv[2] != "httpx")
with Http(sys.argv[1]) as http:
    print(http.get("/").json())
"""


@contextmanager
def https_server(cert: Path, key: Path) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that does not trust us hangs up

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = Quiet(("127.0.0.1", 0), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("over_", ["pyreqwest", "httpx"])
def test_certificates_named_in_the_environment_are_trusted(over_: str, tmp_path: Path) -> None:
    cert, key = Certificate.made(tmp_path, "127.0.0.1").files
    with https_server(cert, key) as url:
        environment = {**os.environ, "SSL_CERT_FILE": str(cert)}
        ran = subprocess.run([sys.executable, "-c", FETCH, url, over_], env=environment, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.returncode) == ("[]\n", 0), ran.stderr


@pytest.mark.usefixtures("over")
def test_a_certificate_nobody_vouches_for_is_refused_at_once(tmp_path: Path) -> None:
    with (
        https_server(*Certificate.made(tmp_path, "127.0.0.1").files) as url,
        Http(url, retries=Retries(attempts=3, base=1000)) as http,
        pytest.raises(SourceError, match="certificate is not trusted") as caught,
    ):
        http.get("/")
    assert "SSL_CERT_FILE" in caught.value.do


def test_a_machine_without_certificates_gets_those_that_came_with_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = ssl.DefaultVerifyPaths("", str(tmp_path), "SSL_CERT_FILE", "", "SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nothing)
    with Server(lambda asked: json_answer({})) as server, Http(server.url) as http:
        assert http.get("/").status == 200


def test_the_fast_transport_is_the_default() -> None:
    transport = open_transport(Timeouts(), Redaction())
    transport.close()
    assert isinstance(transport, PyreqwestTransport)


@pytest.mark.parametrize("how", ["request", "each"])
def test_an_interrupt_is_heard_while_an_answer_is_awaited(how: str) -> None:
    release = threading.Event()
    at_once = 1 if how == "request" else 3

    def reply(asked: Asked) -> bytes:
        if asked.number == at_once:
            os.kill(os.getpid(), signal.SIGINT)
        release.wait(30)
        return json_answer({})

    try:
        with Server(reply) as server:
            http = Http(server.url)
            with pytest.raises(KeyboardInterrupt):
                http.get("/") if how == "request" else list(http.each([Request("GET", "/")] * 3, 3))
            http.close()  # ends the request on the wire, though the server still holds it
            assert server.running == at_once
            release.set()
    finally:
        release.set()


LATE_IMPORT = """
import threading
def within(deed):
    thread = threading.Thread(target=deed)
    thread.start()
    thread.join()

def first():
    global Http, Retries, MuxlyError
    from muxly_dagster.errors import MuxlyError
    from muxly_dagster.http import Http, Retries

def ask():
    with Http("http://127.0.0.1:9", retries=Retries(attempts=1)) as http:
        try:
            http.get("/")
        except MuxlyError:
            print("alive", flush=True)

within(first)
for _ in range(5):
    within(ask)
"""


def test_a_thread_that_imports_the_client_first_may_end() -> None:
    """pyreqwest crashes the process when the thread that first imported it is gone; a pool's threads and a server's come and go."""
    done = subprocess.run([sys.executable, "-c", LATE_IMPORT], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["alive"] * 5), done.stderr
