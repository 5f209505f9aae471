"""Where commands of the tests run, and in what environment."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]


def clean_environ() -> dict[str, str]:
    """The environment without what would change Muxly's, Dagster's or the terminal's ways."""
    ours = ("MUXLY_", "DAGSTER_", "NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "GITHUB_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {"PYTHONPATH": str(ROOT)}
