"""A muxly.yaml as a Dagster component, for people who have a dg project of their own."""

import os

import dagster as dg
from pydantic import Field

from muxly_dagster.defs.project import project_definitions
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.settings import Settings


class MuxlyComponent(dg.Component, dg.Model, dg.Resolvable):
    """Everything a muxly.yaml declares: its sources, pulls, transforms, routes, jobs and checks."""

    project: str = Field("muxly.yaml", description="The project's muxly.yaml, or its folder; relative to the folder of this defs.yaml.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Load the project; the environment fills its variables as everywhere. Raises ConfigurationError."""
        folder = context.path if context.path.is_dir() else context.path.parent
        path = (folder / self.project).resolve()
        if not path.exists():
            raise ConfigurationError(
                f"the component's attribute `project` names {path}, which does not exist",
                do="run `muxly init` to begin a project there, or correct `project` in defs.yaml",
            )
        environ = {**os.environ, "MUXLY_PROJECT": str(path)}
        return project_definitions(Settings.from_environ(environ, start=context.project_root), environ)
