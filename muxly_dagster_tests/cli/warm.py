"""A warm process: `muxly` as a process of its own that begins with everything imported which takes seconds to import.

The server, one for each process of the suite, has imported the libraries and Muxly's lower floors, and has done nothing else. Every command
is a copy of it (`fork`) with its own arguments, environment, folder and streams, imports `muxly_dagster.cli` for itself, and runs
`python -m muxly_dagster` from there on. What is not imported beforehand is imported when it is asked for, as ever.

    python -I -S warm.py SOCKET ARGUMENTS...     run `muxly ARGUMENTS...` here; for scripts of a shell
    python -m muxly_dagster_tests.cli.warm SOCKET     be the server, until standard input ends
"""

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_LENGTH = 8
"""Bytes that say how long a message is."""
_server: "dict[str, subprocess.Popen[bytes]]" = {}


def run(address: str, arguments: Sequence[str], *, folder: str, environ: Mapping[str, str], streams: Sequence[int]) -> int:
    """Run `muxly` with these arguments and wait for its end; answers its exit code. `streams` are the three standard ones."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        message = json.dumps({"arguments": [*arguments], "folder": folder, "environ": dict(environ)}).encode()
        socket.send_fds(connection, [len(message).to_bytes(_LENGTH, "big")], [*streams])
        connection.sendall(message)
        said = connection.recv(1)
    if not said:
        raise ChildProcessError(f"muxly {' '.join(arguments)} was killed")
    return said[0]


def command() -> list[str]:
    """What is `muxly` in the script of a shell."""
    return [sys.executable, "-I", "-S", __file__, address()]


def address() -> str:
    """Where the server of this process listens; starts it, the first time."""
    if not _server:
        import tempfile

        from muxly_dagster_tests.cli.surroundings import ROOT, clean_environ

        place = f"{tempfile.mkdtemp(prefix='muxly-warm-')}/socket"
        command = [sys.executable, "-m", "muxly_dagster_tests.cli.warm", place]
        server = subprocess.Popen(command, cwd=ROOT, env=clean_environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert server.stdout
        assert server.stdout.readline() == b"warm\n"
        _server[place] = server
    return next(iter(_server))


def end() -> None:
    """End the server of this process, if it has one."""
    while _server:
        _, server = _server.popitem()
        server.communicate()


def _serve(place: Path) -> None:
    """Answer until standard input ends."""
    import importlib
    import select
    import shutil

    importlib.import_module("muxly_dagster_tests.preloaded")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen(64)
        print("warm", flush=True)
        while listening in select.select([listening, sys.stdin], [], [])[0]:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _be(connection)
            connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    shutil.rmtree(place.parent)
    os._exit(0)  # as the copies do


def _be(connection: socket.socket) -> None:
    """Be one command, and end."""
    import runpy
    import threading

    length, streams, _, _ = socket.recv_fds(connection, _LENGTH, 3)
    with connection.makefile("rb") as reader:
        asked = json.loads(reader.read(int.from_bytes(length, "big")))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.path[0] = asked["folder"]
    sys.argv = ["muxly", *asked["arguments"]]
    code = 1
    try:
        runpy.run_module("muxly_dagster", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # What the interpreter does at its end, up to taking all its objects apart, which would take as long as most commands do.
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        connection.sendall(bytes([code & 255]))
        os._exit(code & 255)


if __name__ == "__main__":
    if sys.flags.isolated:
        sys.exit(run(sys.argv[1], sys.argv[2:], folder=os.getcwd(), environ=os.environ, streams=(0, 1, 2)))
    _serve(Path(sys.argv[1]))
