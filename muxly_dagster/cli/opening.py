"""How a command comes by its project: settings from the environment, everything loaded and checked."""

import contextlib
import os
from collections.abc import Iterator

from muxly_dagster.assembly import Assembly
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings


def settings() -> Settings:
    """Where the project and its home are. Raises ConfigurationError when there is no project."""
    return Settings.from_environ(os.environ)


def runtime() -> Runtime:
    """The open project. Raises ConfigurationError with every problem of muxly.yaml."""
    return Runtime.open(settings(), os.environ)


@contextlib.contextmanager
def state_of(assembly: Assembly) -> Iterator[Assembly]:
    """The project with its state open, where one of its sources reads what waits there; otherwise nothing is opened."""
    if not any(source.reads_state for source in assembly.sources.values()):
        yield assembly
        return
    with Runtime.of(settings(), assembly) as runtime:
        yield runtime.assembly
