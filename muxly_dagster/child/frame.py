"""Runs inside the child: reads the request, lets a connector's script do the work, and writes its messages. Standard library alone.

usage: python -I frame.py SCRIPT        (the request: one line of JSON on standard input, which then stays open)

The script has `run(request)`, which gives messages as bytes or mappings, and `explain(error)`, which gives the fields of a TRACE.
"""

import importlib.util
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, BinaryIO

_FLUSH_SECONDS = 1.0  # whoever listens takes long silence for a hang


def main(script: str) -> int:
    """Do the work. Answers the exit code: 0 when everything was said, 1 after an error, which was told."""
    # What the script's libraries print must not stand among the messages.
    out = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    request: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    module = None
    try:
        module = _load(script)
        _write(out, module.run(request))
        code = 0
    except (Exception, SystemExit) as error:
        told = module.explain(error) if module else {"message": f"{type(error).__name__}: {error}"}
        _write(out, [{"type": "TRACE", "trace": {"type": "ERROR", "error": told}}])
        code = 1
    if code == 0:
        _write(out, [{"type": "END"}])
    out.flush()
    sys.stderr.flush()
    # Threads that libraries left behind must not keep the process.
    os._exit(code)


def _load(script: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("muxly_child_script", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _write(out: BinaryIO, messages: Iterable[Mapping[str, Any] | bytes]) -> None:
    flushed = time.monotonic()
    for message in messages:
        out.write(message if isinstance(message, bytes) else json.dumps(message, default=str).encode())
        out.write(b"\n")
        if (now := time.monotonic()) - flushed > _FLUSH_SECONDS:
            out.flush()
            flushed = now


def _end_with_parent() -> None:
    """The other end of standard input is closed when the parent is gone, however it went."""
    while os.read(0, 1 << 16):
        pass
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
