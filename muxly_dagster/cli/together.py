"""`muxly dev` and `muxly serve all`: prepared in a process of its own, then all processes under one supervisor."""

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from muxly_dagster.serving import addresses, home, processes
from muxly_dagster.serving.lines import Lines
from muxly_dagster.serving.processes import Process
from muxly_dagster.serving.supervisor import Supervisor
from muxly_dagster.settings import Settings

_CODE_HOST = "127.0.0.1"
_SECONDS_BETWEEN_LOOKS = 0.1


@dataclass(frozen=True)
class Plan:
    """What to run together, and where. A port of 0 is any free one."""

    host: str
    port: int
    api_port: int
    web: bool = True
    watch: bool = False
    verbose: bool = False
    api_options: Sequence[str] = ()
    beside: Sequence[Process] = ()
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    command: str = "muxly dev"


def run(plan: Plan) -> None:
    """Prepare, start, and go on until a signal ends it. Raises MuxlyError for what cannot start, or keeps dying."""
    settings = Settings.from_environ(plan.environ)
    folder = home.dagster_home(settings.home, plan.environ)
    lines = Lines(verbose=plan.verbose)
    with home.held(folder, "supervisor"), contextlib.ExitStack() as stack:
        web_port = addresses.free_port(plan.host, plan.port, do=f"take another one: `{plan.command} --port 3001`") if plan.web else 0
        listener = stack.enter_context(
            addresses.listening(plan.host, plan.api_port, do=f"take another one: `{plan.command} --api-port 8001`")
        )
        api_port = listener.getsockname()[1]
        code_port = addresses.free_port(_CODE_HOST, 0, do="free some ports", apart_from=(web_port, api_port))
        environ = {
            **plan.environ,
            "DAGSTER_HOME": str(folder),
            "MUXLY_PROJECT": str(settings.project),
            "MUXLY_HOME": str(settings.home),
            "MUXLY_CODE_SERVER": f"{_CODE_HOST}:{code_port}",
            "PYTHONUNBUFFERED": "1",
            # Dagster's processes tell what they think of each other's versions and of settings in the working folder.
            "PYTHONWARNINGS": plan.environ.get("PYTHONWARNINGS", "ignore"),
        }
        prepared = prepare(environ, lines)
        addresses.check_guarded(plan.host, guarded=bool(environ.get("MUXLY_ADMIN_TOKEN") or prepared["write_keys"]))
        for line in [*prepared["done"], *(f"warning: {warning}" for warning in prepared["warnings"])]:
            lines.say(line)
        workspace = home.write_workspace(folder, _CODE_HOST, code_port)
        stack.callback(workspace.unlink, missing_ok=True)
        form = "colored" if plan.verbose else "json"  # with tracebacks, or as what can be calmed
        together = [
            *plan.beside,
            processes.api("api", plan.host, api_port, listener.fileno(), environ, plan.api_options),
            processes.code_server(_CODE_HOST, code_port, environ, form),
            *([processes.web(plan.host, web_port, workspace, environ, form)] if plan.web else []),
            processes.daemon(workspace, environ, form),
        ]
        lines.say(f"starting {', '.join(process.name for process in together)} on {settings.project}")
        begun = time.monotonic()
        told = _Told(plan, web_port, api_port, prepared)
        supervisor = Supervisor(together, lines, patient=plan.watch)
        supervisor.when_ready = lambda: lines.say(told.text(time.monotonic() - begun))
        if plan.watch:
            stack.enter_context(_watching(settings, environ, lines, supervisor.released))
        supervisor.run()


def prepare(environ: Mapping[str, str], lines: Lines) -> dict[str, Any]:
    """Run `muxly serve prepare` to its end; what it found. Ends this process as it ended, where something is wrong."""
    done = subprocess.run(
        processes.muxly("serve", "prepare", "--json"), env=dict(environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise typer.Exit(done.returncode)  # it has said why
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@dataclass(frozen=True)
class _Told:
    """What is said once everything answers: where to look, and where to post."""

    plan: Plan
    web_port: int
    api_port: int
    prepared: Mapping[str, Any]

    def text(self, seconds: float) -> str:
        api = addresses.url(self.plan.host, self.api_port)
        rows = [("Dagster UI", addresses.url(self.plan.host, self.web_port))] if self.plan.web else []
        rows += [("API", api), ("Reference", f"{api}/docs"), ("Diagnostics", f"{api}/diagnostics")]
        rows += [("Post events", f"{api}{path}") for path in self.prepared["collect"][:5]]
        rows += [("Webhooks", f"{api}{path}") for path in self.prepared["hooks"][:5]]
        note = [] if self._guarded else ["No admin token and no write key: the API answers this machine only."]
        stops = "Ctrl-C stops everything." + (" A change of the project is loaded as you save it." if self.plan.watch else "")
        table = [f"  {name + ':':<13} {place}" for name, place in rows]
        return "\n".join(["", f"Ready after {seconds:.0f} seconds.", *table, *note, stops, ""]) or " "

    @property
    def _guarded(self) -> bool:
        return bool(self.plan.environ.get("MUXLY_ADMIN_TOKEN") or self.prepared["write_keys"])


# ---- changes of the project ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _watching(settings: Settings, environ: Mapping[str, str], lines: Lines, released: Callable[[], None]) -> Iterator[None]:
    """Look for changes in a thread, until the block is left."""
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(settings, environ, lines, released, stop), name="changes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _watch(settings: Settings, environ: Mapping[str, str], lines: Lines, released: Callable[[], None], stop: threading.Event) -> None:
    from muxly_dagster.serving.watching import changes

    folder = settings.project if settings.project.is_dir() else settings.project.parent
    lake = Path(settings.lake_url)
    for changed in changes(folder.absolute(), (settings.home.absolute(), lake.absolute()), stop):
        names = ", ".join(sorted({_short(path, folder) for path in changed})[:3]) + (" and more" if len(changed) > 3 else "")
        lines.say(f"{names} changed")
        begun = time.monotonic()
        code, said = _reload(environ, stop)
        if stop.is_set():
            return
        if code == 0:
            lines.say(f"the project is sound, and loaded anew after {time.monotonic() - begun:.1f} seconds")
            released()
        else:
            lines.say(said or f"the check ended with code {code}")
            lines.say("the version before goes on; save again when this is set right")


def _reload(environ: Mapping[str, str], stop: threading.Event) -> tuple[int, str]:
    """Check the project in a process of its own, and have the code server load it where it is sound."""
    process = subprocess.Popen(
        processes.muxly("serve", "prepare", "--reload", "--json"),
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    said: list[bytes] = []
    assert process.stderr is not None
    reader = threading.Thread(target=lambda err: said.append(err.read()), args=(process.stderr,), daemon=True)
    reader.start()
    while process.poll() is None:
        if stop.wait(_SECONDS_BETWEEN_LOOKS):
            process.kill()
    reader.join()
    process.stderr.close()
    return process.wait(), b"".join(said).decode("utf-8", "replace").strip()


def _short(path: Path, folder: Path) -> str:
    try:
        return str(path.relative_to(folder.absolute()))
    except ValueError:
        return str(path)
