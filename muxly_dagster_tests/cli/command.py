"""The `muxly` command as a process with an environment of its own."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from muxly_dagster.cli import main
from muxly_dagster_tests.cli import warm
from muxly_dagster_tests.cli.surroundings import ROOT, clean_environ

__all__ = ["COMMAND", "ROOT", "Done", "Muxly", "MuxlyCold", "MuxlyHere", "clean_environ"]

COMMAND = [sys.executable, "-m", "muxly_dagster"]


@dataclass(frozen=True)
class Done:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Muxly:
    """Runs `muxly` in `folder`. `said` gathers all that any command ever wrote, to look for what must not be in it.

    Every command is a process of its own, a copy of a warm one (`warm.py`): to import everything anew takes three seconds each.
    """

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def __call__(self, *arguments: str, folder: Path | None = None, **environ: str) -> Done:
        where, variables = str(folder or self.folder), clean_environ() | self.environ | environ
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull, "rb") as nothing:
            streams = [stream.fileno() for stream in (nothing, out, err)]
            code = self.run(arguments, folder=where, environ=variables, streams=streams)
            for stream in (out, err):
                stream.seek(0)
            done = Done(code, out.read().decode(), err.read().decode())
        self.said.append(done.all)
        assert "Traceback" not in done.all, done.all
        return done

    def run(self, arguments: Sequence[str], *, folder: str, environ: Mapping[str, str], streams: Sequence[int]) -> int:
        return warm.run(warm.address(), arguments, folder=folder, environ=environ, streams=streams)


@dataclass
class MuxlyCold(Muxly):
    """The same from a new interpreter on, as people have it: where it matters what is imported, from where, or what is said at the end."""

    def run(self, arguments: Sequence[str], *, folder: str, environ: Mapping[str, str], streams: Sequence[int]) -> int:
        stdin, stdout, stderr = streams
        command = [*COMMAND, *arguments]
        return subprocess.run(command, cwd=folder, env=environ, stdin=stdin, stdout=stdout, stderr=stderr, timeout=120).returncode


@dataclass
class MuxlyHere(Muxly):
    """The same in this process, where starting a child for every command would cost a second each."""

    def __call__(self, *arguments: str, folder: Path | None = None, **environ: str) -> Done:
        streams = io.BytesIO(), io.BytesIO()
        out, err = (io.TextIOWrapper(stream, "utf-8", write_through=True) for stream in streams)
        variables = clean_environ() | self.environ | environ
        code: Any = 0
        with (
            contextlib.chdir(folder or self.folder),
            mock.patch.dict(os.environ, variables, clear=True),
            mock.patch.object(sys, "argv", ["muxly", *arguments]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as ended:
                code = ended.code or 0
        done = Done(code, *(stream.getvalue().decode() for stream in streams))
        self.said.append(done.all)
        return done
