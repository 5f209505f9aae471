"""docs/cli.md: its examples run, and it leaves no command or option out."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer.main
from click import Context

from muxly_dagster.cli.app import app
from muxly_dagster_tests.cli import warm
from muxly_dagster_tests.cli.command import ROOT, clean_environ

PAGE = (ROOT / "docs" / "cli.md").read_text("utf-8")


def test_its_examples_run_in_the_order_they_are_given(tmp_path: Path) -> None:
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    commands = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    assert len(commands) > 15
    script = "\n".join(["set -eu", f'muxly() {{ {shlex.join(warm.command())} "$@"; }}', *commands])
    environ = clean_environ() | {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", list(typer.main.get_command(app).commands))  # type: ignore[attr-defined]
def test_every_command_has_a_section_with_an_example_and_all_its_options(name: str) -> None:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    [section] = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert f"muxly {name}" in section
    commands = [command, *getattr(command, "commands", {}).values()]
    options = [
        max(option.opts, key=len) for each in commands for option in each.get_params(Context(each)) if option.opts[0].startswith("-")
    ]
    assert [option for option in options if option not in ("--help", "--json") and f"`{option}" not in section] == []
    for below in getattr(command, "commands", {}):
        assert f"muxly {name} {below}" in section
