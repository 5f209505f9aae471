"""How a command comes by its project: settings from the environment, everything loaded and checked."""

import os
from pathlib import Path

from muxly_dagster import catalog
from muxly_dagster.catalog import Extended, enable_plugins
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.plugins import NONE, Plugins, seconds_from
from muxly_dagster.project.load import read_project
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings


def settings() -> Settings:
    """Where the project and its home are. Raises ConfigurationError when there is no project."""
    return Settings.from_environ(os.environ)


def runtime() -> Runtime:
    """The open project. Raises ConfigurationError with every problem of muxly.yaml."""
    return Runtime.open(settings(), os.environ)


def plugins() -> tuple[Plugins, Path | None]:
    """What the project's plugins bring, and the project's folder; nothing where there is no project, or one that cannot be read."""
    try:
        project, _ = read_project(settings().project, os.environ)
    except ConfigurationError:
        return NONE, None
    return enable_plugins(project.plugins, project.folder, seconds_from(os.environ)), project.folder


def connectors() -> Extended:
    """What comes with Muxly, with what the project's plugins bring where there is a project."""
    return Extended(catalog, plugins()[0])
