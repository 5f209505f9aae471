"""What all routes of the API share: the open project as it stands now, the state, Dagster, and how this process is set up."""

import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from starlette.requests import Request

from muxly_dagster.api.collecting.accepting import Collecting
from muxly_dagster.api.reloading import Reloading
from muxly_dagster.api.starting import Starting
from muxly_dagster.assembly import Assembly
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.orchestrator import Orchestrator
from muxly_dagster.project.load import project_files
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings
from muxly_dagster.state import State

_SECONDS_BETWEEN_LOOKS = 1.0


class OpenProject:
    """The project as its files and the jobs in the state say now. A change that is not sound leaves the one before in place."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self.settings, self._environ = settings, environ
        self._lock = threading.Lock()
        self._runtime = Runtime.open(settings, environ)
        self._made: object = None
        self._seen, self._looked = self._version(), time.monotonic()
        self.trouble: MuxlyError | None = None
        """What is wrong with the newest version of the project, where that is not the one in use."""

    @property
    def runtime(self) -> Runtime:
        """The open runtime; looks for changes about once a second, beside the request that asks, which may have no time for a database.

        The database of all of them is the same one.
        """
        if time.monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS and self._lock.acquire(blocking=False):
            threading.Thread(target=self._look, name="muxly-look", daemon=True).start()
        return self._runtime

    @property
    def assembly(self) -> Assembly:
        """Everything the project runs."""
        return self.runtime.assembly

    @property
    def state(self) -> State:
        """The state database, which stays open whatever becomes of the project."""
        return self._runtime.state

    def reload(self) -> None:
        """Look for changes now. Raises MuxlyError for a project that is not sound."""
        with self._lock:
            self._reload(self._version())
        if self.trouble is not None:
            raise self.trouble

    def close(self) -> None:
        """Give back what was opened."""
        with self._lock:
            self._runtime.__exit__()

    def _look(self) -> None:
        """Reload what has changed; the lock is held, and given back."""
        try:
            version = self._version()
            if version != self._seen:
                self._reload(version)
        finally:
            self._looked = time.monotonic()
            self._lock.release()

    def _reload(self, version: object) -> None:
        try:
            self._runtime = self._runtime.reloaded(self._environ)
            self.trouble = None
        except MuxlyError as error:
            self.trouble = error
        self._seen = version

    def _version(self) -> object:
        """Something that changes when the project does."""
        try:
            files = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in project_files(self.settings.project)]
        except (MuxlyError, OSError):
            files = []
        return files, self._jobs()

    def _jobs(self) -> object:
        """The jobs that were made by the API; those of before while the database is away."""
        with contextlib.suppress(MuxlyError):
            self._made = [(job.name, job.spec) for job in self.state.jobs.made()]
        return self._made


@dataclass
class Service:
    """Everything one API process works with. `public_url` is how the world calls it, for signatures that cover the address."""

    project: OpenProject
    orchestrator: Orchestrator
    admin_token: str = ""
    loopback: bool = True
    public_url: str = ""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def state(self) -> State:
        """The state database."""
        return self.project.state

    @property
    def runtime(self) -> Runtime:
        """The open project."""
        return self.project.runtime

    @cached_property
    def starting(self) -> Starting:
        """Asks Dagster for runs behind the answers."""
        return Starting(self.state, self.orchestrator)

    @cached_property
    def reloading(self) -> Reloading:
        """Lets Dagster load the project anew behind the answers."""
        return Reloading(self.orchestrator)

    @cached_property
    def collecting(self) -> Collecting:
        """Takes events in. Raises ConfigurationError for limits that are none."""
        return Collecting(self.state, lambda: self.project.assembly, self.environ)

    @property
    def home(self) -> Path:
        """Where Muxly keeps its things."""
        return self.project.settings.home

    @classmethod
    def open(cls, settings: Settings, environ: Mapping[str, str], orchestrator: Orchestrator, *, loopback: bool = True) -> "Service":
        """From MUXLY_ADMIN_TOKEN, MUXLY_PUBLIC_URL and what `collecting` reads. Raises ConfigurationError for a project or setting that is
        not sound."""
        found = cls(
            OpenProject(settings, environ),
            orchestrator,
            admin_token=environ.get("MUXLY_ADMIN_TOKEN", ""),
            loopback=loopback,
            public_url=environ.get("MUXLY_PUBLIC_URL", "").rstrip("/"),
            environ=environ,
        )
        try:
            _ = found.collecting
        except ConfigurationError:
            found.project.close()
            raise
        return found

    def close(self) -> None:
        """Give back what was opened."""
        if "collecting" in vars(self):
            self.collecting.close()
        if "starting" in vars(self):
            self.starting.close()
        if "reloading" in vars(self):
            self.reloading.close()
        self.orchestrator.close()
        self.project.close()


def service_of(request: Request) -> Service:
    """The service that a request is answered by."""
    found: Service = request.app.state.service
    return found
