"""The `muxly` command as a child process with an environment of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
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
    """Runs `muxly` in `folder`. `said` gathers all that any command ever wrote, to look for what must not be in it."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def __call__(self, *arguments: str, folder: Path | None = None, **environ: str) -> Done:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=folder or self.folder,
            env=clean_environ() | self.environ | environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.said.append(done.stdout + done.stderr)
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        return Done(done.returncode, done.stdout, done.stderr)


def clean_environ() -> dict[str, str]:
    """The environment without what would change Muxly's, Dagster's or the terminal's ways."""
    ours = ("MUXLY_", "DAGSTER_", "NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "GITHUB_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {"PYTHONPATH": str(ROOT)}
