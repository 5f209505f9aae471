"""What Dagster loads: the project that MUXLY_PROJECT or the working folder names, or else the demo's."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from muxly_dagster.defs import warm
from muxly_dagster.defs.project import project_definitions
from muxly_dagster.settings import PROJECT_FILES, Settings

_DEMO_FOLDER = ".demo"
_DEMO_API = "http://127.0.0.1:8765"


def project_environ(environ: Mapping[str, str], start: Path) -> Mapping[str, str]:
    """The environment to load a project with: as it is where there is a project, the demo's where there is none.

    Without a project of one's own, `dagster dev` in a fresh checkout shows the demo: the one that `make demo` ran in `.demo`, or
    the one in the package. Variables that are set win over the demo's.
    """
    if environ.get("MUXLY_PROJECT") or any((folder / name).is_file() for folder in (start, *start.parents) for name in PROJECT_FILES):
        return environ
    from muxly_dagster import demo  # brings a web server along, which nobody with a project of his own needs

    ran = start / _DEMO_FOLDER
    project = ran / "muxly.yaml"
    if not project.is_file():
        project = Path(demo.__file__).parent / "muxly.yaml"
    return {**demo.environment(ran, _DEMO_API), **{name: value for name, value in environ.items() if value}, "MUXLY_PROJECT": str(project)}


_environ = project_environ(os.environ, Path.cwd())
defs = project_definitions(Settings.from_environ(_environ), _environ)
if warm.is_code_server(sys.argv):
    warm.start_runs_warm()
