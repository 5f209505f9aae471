"""A real Prometheus, a real Pushgateway and promtool, from the machine's own packages; and a receiver of remote write 2.0."""

import contextlib
import json
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cramjam

from muxly_dagster import remote_write

_PATIENCE = 60.0
_PACKAGES = {"prometheus": "prometheus", "promtool": "prometheus", "prometheus-pushgateway": "prometheus-pushgateway"}


def missing(program: str) -> str:
    """Why a test cannot run here; empty where it can."""
    return "" if shutil.which(program) else f"no {program} here: install the package {_PACKAGES[program]}"


# ---- the real ones -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A Prometheus that runs."""

    url: str

    @property
    def write_url(self) -> str:
        """Where it takes remote writes."""
        return f"{self.url}/api/v1/write"

    def ask(self, path: str, **params: str) -> Any:
        """What its HTTP API answers."""
        query = urllib.parse.urlencode(params)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def values(self, query: str, at: float) -> dict[tuple[tuple[str, str], ...], float]:
        """An instant query at a moment (seconds since 1970): values by labels, without name, job and instance."""
        found = self.ask("query", query=query, time=f"{at:.3f}")["result"]
        return {_labels(each["metric"]): float(each["value"][1]) for each in found}

    def samples(self, selector: str, start: float, end: float) -> list[tuple[float, float]]:
        """The raw samples of one series in a range of time, as pairs of time and value."""
        seconds = int(end - start) + 1
        found = self.ask("query", query=f"{selector}[{seconds}s]", time=f"{end:.3f}")["result"]
        return [(at, float(value)) for each in found for at, value in each["values"]]


def _labels(metric: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in metric.items() if name not in ("__name__", "job", "instance")))


@contextlib.contextmanager
def prometheus(folder: Path, scraped: str = "", *options: str, sends_to: str = "", key: str = "") -> Iterator[Server]:
    """A Prometheus with its data in `folder`, that takes remote writes; it scrapes one address, where one is given.

    With `sends_to` it scrapes itself, and writes what it gets to that address, signed in with a key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    scraped = f"127.0.0.1:{port}" if sends_to else scraped
    sending = f'remote_write: [{{url: "{sends_to}", authorization: {{credentials: "{key}"}}, queue_config: {{batch_send_deadline: 1s}}}}]\n'
    jobs = f'  - {{job_name: muxly, scrape_interval: 1s, static_configs: [{{targets: ["{scraped}"]}}]}}\n' if scraped else " []\n"
    (folder / "prometheus.yml").write_text(f"scrape_configs:{chr(10) if scraped else ''}{jobs}{sending if sends_to else ''}")
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--storage.tsdb.retention.time=100y",
        *options,
    ]
    with _running(command, f"http://127.0.0.1:{port}/-/ready", folder / "prometheus.log"):
        yield Server(f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def pushgateway(folder: Path) -> Iterator[str]:
    """The address of a Pushgateway."""
    port = free_port()
    command = ["prometheus-pushgateway", f"--web.listen-address=127.0.0.1:{port}"]
    with _running(command, f"http://127.0.0.1:{port}/-/ready", folder / "pushgateway.log"):
        yield f"http://127.0.0.1:{port}"


def lint(text: bytes) -> str:
    """What `promtool check metrics` has to say about an exposition; empty where nothing is wrong with it."""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
    return (done.stdout + done.stderr).decode() if done.returncode or done.stderr else ""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def until(true: Callable[[], Any], what: str) -> Any:
    """Wait until something is true, and give it."""
    deadline = time.monotonic() + _PATIENCE
    while not (found := true()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come about within {_PATIENCE:g} s")
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def _running(command: list[str], ready: str, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        until(lambda: process.poll() is not None or answers(ready), f"{command[0]} ({log})")
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended:\n{log.read_text(errors='replace')}")
        yield
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    """Whether an address answers with a success."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status < 300)
    except (urllib.error.URLError, OSError):
        return False


# ---- a receiver of remote write ----------------------------------------------------------------------------------------

STALE = 0x7FF0000000000002


@dataclass(frozen=True, slots=True)
class Wrote:
    """One request: what its headers said, and what it held."""

    headers: Mapping[str, str]
    message: Any

    @property
    def series(self) -> list[tuple[dict[str, str], list[tuple[int, float, int]], dict[str, Any]]]:
        """Labels, samples (time, value, start) and metadata (type, help, unit) of each series of a 2.0 request."""
        symbols = list(self.message.symbols)
        found = []
        for each in self.message.timeseries:
            refs = [symbols[ref] for ref in each.labels_refs]
            labels = dict(zip(refs[::2], refs[1::2], strict=True))
            assert list(labels) == sorted(labels) and len(labels) * 2 == len(refs) and all(labels.values())
            samples = [(sample.timestamp, sample.value, sample.start_timestamp) for sample in each.samples]
            assert samples == sorted(samples, key=lambda sample: sample[0]) and samples
            meta = {"type": each.metadata.type, "help": symbols[each.metadata.help_ref], "unit": symbols[each.metadata.unit_ref]}
            found.append((labels, samples, meta))
        return found


@dataclass
class Writer:
    """A receiver of remote write 2.0 (1.0 where `knows` has it) that takes each series' samples in order of time, as Prometheus does.

    `troubles` are answers to the next requests (status, headers), given in place of taking them; a status of 0 takes one. With `partial`,
    what can be written of a request is, and the rest is answered with 400. `silent`: it never says what it wrote.
    """

    knows: tuple[str, ...] = ("2.0",)
    partial: bool = False
    silent: bool = False
    troubles: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    after: Callable[[], None] | None = None
    asked: list[Wrote] = field(default_factory=list)
    held: dict[tuple[tuple[str, str], ...], dict[int, float]] = field(default_factory=dict)
    token: str = ""
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def values(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The newest value of each series of a name, by its own labels; series that have ended are left out."""
        found = {}
        for labels, samples in self.held.items():
            newest = samples[max(samples)]
            if dict(labels)["__name__"] == name and not is_stale(newest):
                found[tuple((n, v) for n, v in labels if n not in ("__name__", "job", "instance"))] = newest
        return found

    def history(self, name: str) -> list[tuple[int, float]]:
        """All samples of the one series of this name."""
        (samples,) = (samples for labels, samples in self.held.items() if dict(labels)["__name__"] == name)
        return sorted(samples.items())

    def take(self, headers: Mapping[str, str], body: bytes) -> tuple[int, str, dict[str, str]]:
        """Status, text and headers of the answer to one request."""
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            return 401, "who are you", {}
        if self.troubles:
            status, said = self.troubles.pop(0)
            if status:
                return status, "not now", said
        kind = "2.0" if "proto=io.prometheus.write.v2.Request" in headers["content-type"] else "1.0"
        if kind not in self.knows:
            return 415, f"no {kind} here", {}
        assert headers["content-encoding"] == "snappy"
        assert headers["x-prometheus-remote-write-version"] == ("2.0.0" if kind == "2.0" else "0.1.0")
        content = bytes(cramjam.snappy.decompress_raw(body))
        message = (remote_write.Request if kind == "2.0" else remote_write.WriteRequest).FromString(content)
        wrote = Wrote(headers, message)
        self.asked.append(wrote)
        if kind == "1.0":
            found = [({e.name: e.value for e in s.labels}, [(e.timestamp, e.value) for e in s.samples]) for s in message.timeseries]
        else:
            found = [(labels, [(at, value) for at, value, _ in samples]) for labels, samples, _ in wrote.series]
        refused, written = [], 0
        before = {labels: dict(samples) for labels, samples in self.held.items()}
        for labels, samples in found:
            mine = self.held.setdefault(tuple(sorted(labels.items())), {})
            for at, value in samples:
                newest = max(mine, default=at)
                same = at in mine and struct.pack("<d", mine[at]) == struct.pack("<d", value)
                if labels.get("refuse") or at < newest or (at in mine and not same):
                    refused.append("out of order sample" if at < newest else "duplicate sample for timestamp" if at in mine else "unwanted")
                else:
                    mine[at] = value
                    written += 1
        if refused and not self.partial:
            self.held, written = before, 0
        self.held = {labels: samples for labels, samples in self.held.items() if samples}
        said = {} if kind == "1.0" or self.silent else {"X-Prometheus-Remote-Write-Samples-Written": str(written)}
        return (400, refused[0], said) if refused else (204, "", said)


def is_stale(value: float) -> bool:
    """Whether a value is the marker that ends a series."""
    return bool(struct.unpack("<Q", struct.pack("<d", value))[0] == STALE)


@contextlib.contextmanager
def writer(**how: Any) -> Iterator[Writer]:
    """A receiver on a free port."""
    receiver = Writer(**how)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with receiver.lock:
                status, text, headers = receiver.take({name.lower(): value for name, value in self.headers.items()}, body)
                if receiver.after is not None and status < 300:
                    receiver.after()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_PUT = do_POST

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/api/v1/write"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
