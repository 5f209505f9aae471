"""Tags of runs that Muxly gives a meaning to, wherever they were started: by the API, a schedule, or by hand in the Dagster UI."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from muxly_dagster.errors import ConfigurationError

JOB = "muxly/job"
"""The job's name; every run of a job has it."""

TICK = "muxly/tick"
"""For which moment of its schedule a run is."""

FROM_START = "muxly/from_start"
"""Set to "true": cursors and offsets are forgotten, everything is read or delivered again."""

PAST_GUARD = "muxly/past_guard"
"""Set to "true": deliveries do what their guards would stop."""

PARAMETERS = "muxly/parameters"
"""What a run was started with, as a JSON object: Python transforms can read it."""

SELECT = "muxly/select"
"""Which assets of its job a run is about, parted by spaces; all of them unless set."""


def is_set(tags: Mapping[str, str], tag: str) -> bool:
    """Whether a tag says "true"."""
    return tags.get(tag, "").strip().lower() == "true"


def read_parameters(tags: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of a run; none unless given. Raises ConfigurationError for a tag that is no JSON object."""
    try:
        parameters = orjson.loads(tags.get(PARAMETERS) or "{}")
    except orjson.JSONDecodeError:
        parameters = None
    if not isinstance(parameters, dict):
        raise ConfigurationError(f"the tag {PARAMETERS} of this run is no JSON object", do='write it like {"since": "2026-01-01"}')
    return parameters


def read_selection(tags: Mapping[str, str]) -> Sequence[str]:
    """The assets that a run is about, by name; empty for all of its job."""
    return tags.get(SELECT, "").split()
