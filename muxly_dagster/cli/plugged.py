"""What the project's plugins bring, for commands that need no project but use one where there is one."""

import os
from pathlib import Path

from muxly_dagster import catalog
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.plugins import NONE, Plugins, seconds_from
from muxly_dagster.project.load import read_project
from muxly_dagster.settings import Settings


def plugins() -> tuple[Plugins, Path | None]:
    """The enabled plugins, and the project's folder; nothing where there is no project, or one that cannot be read."""
    try:
        project, _ = read_project(Settings.from_environ(os.environ).project, os.environ)
    except ConfigurationError:
        return NONE, None
    return catalog.enable_plugins(project.plugins, project.folder, seconds_from(os.environ)), project.folder


def connectors() -> catalog.Extended:
    """What comes with Muxly and what the plugins bring."""
    return catalog.Extended(catalog, plugins()[0])
