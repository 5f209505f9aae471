"""`muxly dev`: everything of one Muxly on this machine, loaded anew as the project changes, stopped together."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from muxly_dagster.cli import together
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.serving import addresses, processes
from muxly_dagster.serving.home import dagster_home

__all__ = ["dagster_home", "dev"]

_DEMO = Path(".demo")


def dev(*, host: str, port: int, api_port: int, web: bool, watch: bool, verbose: bool, demo: bool) -> None:
    """Run everything until Ctrl-C."""
    plan = together.Plan(host, port, api_port, web=web, watch=watch, verbose=verbose)
    if demo:
        plan = _on_demo(plan)
    together.run(plan)


def _on_demo(plan: together.Plan) -> together.Plan:
    """The same on the demo's project, with the API that it pulls from beside it."""
    from muxly_dagster import demo  # brings a web server along

    if os.environ.get("MUXLY_PROJECT"):
        raise ConfigurationError("MUXLY_PROJECT names a project, and --demo asks for the demo's", do="leave one of them out")
    folder = _DEMO.absolute()
    demo.copy_project(folder)
    day = (folder / "day").read_text("utf-8").strip() if (folder / "day").exists() else "1"
    port = addresses.free_port("127.0.0.1", 0, do="free some ports")
    url = f"http://127.0.0.1:{port}"
    environ = {**os.environ, **demo.environment(folder, url)}
    command = [sys.executable, "-m", "muxly_dagster.demo", "--port", str(port), "--day", day]
    api = processes.Process("demo", command, environ, lambda: addresses.answers(url))
    return replace(plan, environ=environ, beside=(api,))
