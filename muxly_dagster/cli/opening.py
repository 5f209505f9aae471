"""How a command comes by its project: settings from the environment, everything loaded and checked."""

import os

from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings


def settings() -> Settings:
    """Where the project and its home are. Raises ConfigurationError when there is no project."""
    return Settings.from_environ(os.environ)


def runtime() -> Runtime:
    """The open project. Raises ConfigurationError with every problem of muxly.yaml."""
    return Runtime.open(settings(), os.environ)
