"""`muxly serve prepare`: what must be right before the processes of a Muxly start, done once and by one process.

`muxly dev` runs it in a process of its own too: it stays small, and code that changed is imported anew every time it looks.
"""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from muxly_dagster.cli import terminal
from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.orchestrator import Orchestrator
from muxly_dagster.runtime import Runtime
from muxly_dagster.serving import addresses, home, orphans
from muxly_dagster.settings import Settings


def prepare(*, reload: bool, json: bool) -> None:
    """Prepare everything and say what was done. Raises MuxlyError, with every mistake of the project."""
    found = prepared(os.environ)
    if reload:
        folder = home.dagster_home(Settings.from_environ(os.environ).home, os.environ)
        orchestrator = Orchestrator(folder, os.environ.get("MUXLY_CODE_SERVER", ""))
        try:
            orchestrator.reload()
        finally:
            orchestrator.close()
    if json:
        terminal.print_json(found)
        return
    for line in found["done"]:
        terminal.say(line)
    terminal.say(f"{found['project']} is ready to be served")


def prepared(environ: Mapping[str, str]) -> dict[str, Any]:
    """Migrate Dagster's storage and the state, tidy up behind processes that were killed, load the project as Dagster will."""
    settings = Settings.from_environ(environ)
    folder = home.dagster_home(settings.home, environ)
    done = [line for line in [home.prepare(folder)] if line]
    with home.opened(folder) as instance:
        # What an address of this machine had started where nobody listens any more: its processes are gone with it.
        lost = orphans.fail_orphans(instance, lambda host, port: port > 0 and addresses.is_loopback(host) and not listens(host, port))
    done += [f"run {run} was marked as failed: its process was killed" for run in lost]
    with Runtime.open(settings, environ) as runtime:
        assembly = runtime.assembly
        try:
            dg.Definitions.validate_loadable(assembly_definitions(assembly, settings))
        except dg.DagsterError as error:
            raise ConfigurationError(f"Dagster cannot load the project: {error}", do="please report it, with the muxly.yaml") from None
        collected = [(pull.source, pull.settings.stream) for pull in assembly.pulls.values() if pull.connector.id == "collector"]
        return {
            "project": str(settings.project),
            "done": done,
            "warnings": [str(warning) for warning in assembly.warnings],
            "collect": [f"/v1/collect/{source}/{stream}" for source, stream in dict.fromkeys(collected)],
            "hooks": [f"/v1/hooks/{name}" for name, job in assembly.jobs.items() if job.webhook is not None],
            "write_keys": any(key.revoked_at is None for key in runtime.state.keys.all()),
        }


def listens(host: str, port: int) -> bool:
    """Whether a code server listens at this address."""
    try:
        return addresses.connects(host, port)
    except MuxlyError:
        return False
