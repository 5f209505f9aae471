"""The parent's side: starts the child with a clean environment, hears its messages within bounds, and leaves no orphan."""

import importlib.util
import json
import logging
import os
import selectors
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError, SourceError
from muxly_dagster.http.redaction import Redaction

_FRAME = Path(__file__).with_name("frame.py")
_LONGEST_LINE = 64 << 20
_CHUNK = 1 << 18
_LAST_WORDS = 5  # lines
_SHOWN = 600  # characters
_SECONDS_TO_END = 2.0

# Where programs are found, where a person's things are, how texts are written, and how the network is reached: nothing else goes along.
_KEPT = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
_KEPT |= {name for each in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (each, each.upper())}

_log = logging.getLogger("muxly.child")


@dataclass(frozen=True, slots=True)
class Work:
    """What a child is to do. `name` stands in errors; `package` is the distribution that its interpreter must have.

    `folder` is where it runs, `environ` what its environment has besides, `silence` how many seconds it may say nothing.
    """

    name: str
    package: str
    python: str
    script: Path
    folder: Path
    request: Mapping[str, Any] = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    environ: Mapping[str, str] = field(default_factory=dict)
    silence: float = 600.0


class Record(msgspec.Struct):
    """A record as the source gave it: JSON text."""

    data: msgspec.Raw


class Message(msgspec.Struct):
    """One line, by the names of the Airbyte protocol."""

    type: str
    record: Record | None = None
    state: Any = None
    catalog: Any = None
    connectionStatus: Any = None
    log: Any = None
    trace: Any = None


def has_module(name: str) -> bool:
    """Whether this interpreter has a module, without importing it."""
    return importlib.util.find_spec(name) is not None


def shown(text: str, secrets: Iterable[str]) -> str:
    """What a child said of itself, as people may see it: on one line, not too long, without secrets."""
    return Redaction(secrets).excerpt(text.encode(), _SHOWN)


def ask(work: Work, kind: str) -> Any:
    """The content of the one message of this type (`CATALOG`, `CONNECTION_STATUS`). Raises as `messages`, and SourceError without one."""
    found = None
    for message in messages(work):
        if message.type == kind:
            found = message.catalog if kind == "CATALOG" else message.connectionStatus
    if found is None:
        raise SourceError(f"{work.name}: the child gave no {kind}", do=f"install a newer {work.package}")
    return found


def messages(work: Work) -> Iterator[Message]:
    """Run the child, and give its messages but for logs and errors. Closing the iterator early ends the child.

    Raises what the child's error amounts to (SignInError, RetryLater, ConfigurationError, SourceError), ConfigurationError where there
    is no such interpreter, and SourceError for a child that dies, says something that is no message, or nothing for too long.
    """
    redact = Redaction(work.secrets)
    decode = msgspec.json.Decoder(Message).decode
    with _running(work) as process:
        heard = _Heard(work, process, redact)
        ended = False
        for line in heard.lines():
            try:
                message = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                shown = redact.excerpt(line)
                do = f"see whether `python` names an interpreter that has {work.package}"
                raise SourceError(f"{work.name}: the child wrote something that is no message: {shown}", do=do) from None
            if message.type == "LOG":
                _relay(message.log, redact, work.name)
            elif message.type == "TRACE":
                if (message.trace or {}).get("type") == "ERROR":
                    raise _error(work, message.trace.get("error") or {}, redact)
            elif message.type == "END":
                ended = True
            else:
                yield message
        code = process.wait()
        if code or not ended:
            raise _died(work, code, heard.last_words)


# ---- the process --------------------------------------------------------------------------------------------------------


@contextmanager
def _running(work: Work) -> Iterator["subprocess.Popen[bytes]"]:
    with tempfile.TemporaryDirectory(prefix="muxly-child-", ignore_cleanup_errors=True) as scratch:
        environ = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("LC_")}
        environ |= {"TMPDIR": scratch, **work.environ}
        try:
            process = subprocess.Popen(
                [work.python, "-I", str(_FRAME), str(work.script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environ,
                cwd=work.folder,
                start_new_session=True,  # so that it can be ended with whatever it started itself
            )
        except OSError as error:
            do = f"set `python` to the interpreter of an environment that has {work.package}"
            raise ConfigurationError(f"{work.name}: {work.python} cannot be started in {work.folder}: {error.strerror}", do=do) from None
        writer = threading.Thread(
            target=_hand_over, args=(process, json.dumps(dict(work.request), default=str).encode() + b"\n"), daemon=True
        )
        writer.start()
        try:
            yield process
        finally:
            _end(process)
            writer.join()
            for pipe in (process.stdin, process.stdout, process.stderr):
                with suppress(OSError):
                    assert pipe is not None
                    pipe.close()


def _hand_over(process: "subprocess.Popen[bytes]", request: bytes) -> None:
    """Write the request, on a thread of its own: a child that does not read would block the pull for ever."""
    assert process.stdin is not None
    with suppress(OSError, ValueError):
        process.stdin.write(request)
        process.stdin.flush()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the child and what it started: politely first."""
    if process.poll() is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_SECONDS_TO_END)
    with suppress(ProcessLookupError):  # nobody is left in its group
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Heard:
    """What a child says: lines of messages, and a log whose last lines are kept."""

    def __init__(self, work: Work, process: "subprocess.Popen[bytes]", redact: Redaction) -> None:
        self._work, self._process, self._redact = work, process, redact
        self._rest = b""
        self.last_words: deque[str] = deque(maxlen=_LAST_WORDS)

    def lines(self) -> Iterator[bytes]:
        """Lines of messages until both pipes are closed."""
        assert self._process.stdout is not None and self._process.stderr is not None
        parts: list[bytes] = []
        size = 0
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ, "messages")
            selector.register(self._process.stderr, selectors.EVENT_READ, "log")
            while selector.get_map():
                ready = selector.select(self._work.silence)
                if not ready:
                    raise self._silent()
                for key, _ in ready:
                    chunk = os.read(key.fd, _CHUNK)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    elif key.data == "log":
                        self._hear(chunk)
                    else:
                        *whole, rest = chunk.split(b"\n")
                        for line in whole:
                            yield b"".join([*parts, line])
                            parts, size = [], 0
                        parts.append(rest)
                        size += len(rest)
                        if size > _LONGEST_LINE:
                            what = f"{self._work.name}: a message is longer than {_LONGEST_LINE >> 20} MiB"
                            raise SourceError(what, do="leave the field that is so large out of the records")
        self._hear(b"\n")
        if any(parts):
            yield b"".join(parts)

    def _hear(self, chunk: bytes) -> None:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[-_CHUNK:]
        for line in whole:
            if text := self._redact.excerpt(line, 1000):
                self.last_words.append(text)
                _log.info("%s: %s", self._work.name, text)

    def _silent(self) -> MuxlyError:
        last = f"; its last words were: {self.last_words[-1]}" if self.last_words else ""
        what = f"{self._work.name}: the child has said nothing for {self._work.silence:g} seconds{last}"
        return RetryLater(what, do="try again; if the source is as slow as that, raise `silence`")


# ---- what it says of itself -----------------------------------------------------------------------------------------------


_LEVELS = {"FATAL": logging.CRITICAL, "ERROR": logging.ERROR, "WARN": logging.WARNING, "INFO": logging.INFO}


def _relay(log: Any, redact: Redaction, name: str) -> None:
    log = log if isinstance(log, dict) else {}
    text = redact.excerpt(str(log.get("message", "")).encode(), 1000)
    _log.log(_LEVELS.get(str(log.get("level")), logging.DEBUG), "%s: %s", name, text)


def _error(work: Work, error: Mapping[str, Any], redact: Redaction) -> MuxlyError:
    """What a TRACE amounts to: by the status that the provider answered with, where there was one, else by the kind of failure."""
    said = " ".join(dict.fromkeys(str(error[name]).strip() for name in ("message", "internal_message") if error.get(name)))
    what = f"{work.name}: {redact.excerpt(said.encode(), _SHOWN) or 'the child failed without a word'}"
    failure, status = error.get("failure_type"), error.get("status") or 0
    if status in (401, 403):
        return SignInError(what, do="renew the credentials in the source's `secrets`, and see whether they may read this stream")
    if failure == "transient_error" or status == 429 or status >= 500:
        return RetryLater(what, do="try again later")
    if failure == "missing_package":
        return ConfigurationError(what, do=f"install {work.package} there, or set `python` to an interpreter that has it")
    if failure == "config_error":
        return ConfigurationError(what, do="correct the source's settings")
    return SourceError(what, do="see the log of the run for what led to it")


def _died(work: Work, code: int, last_words: deque[str]) -> MuxlyError:
    if code < 0:
        with suppress(ValueError):
            how = f"was ended by {signal.Signals(-code).name}"
            what = f"{work.name}: the child {how}" + _quoted(last_words)
            return RetryLater(what, do="see whether the machine ran out of memory, and try again")
    how = f"ended with exit code {code}" if code else "ended before it had said everything"
    return SourceError(f"{work.name}: the child {how}{_quoted(last_words)}", do="see the log of the run for what led to it")


def _quoted(last_words: deque[str]) -> str:
    return f"; its last words were: {' / '.join(last_words)}" if last_words else ""
