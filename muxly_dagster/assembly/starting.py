"""What a run of a job is started with, checked and written as the tags that the run has."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from muxly_dagster.assembly.choice import select
from muxly_dagster.assembly.parts import Assembly
from muxly_dagster.assembly.tags import FROM_START, PARAMETERS, PAST_GUARD, SELECT
from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.project.checks import did_you_mean

_LONGEST = 16_384


def start_tags(
    assembly: Assembly, job: str, patterns: Sequence[str], parameters: Mapping[str, Any], *, from_start: bool, past_guard: bool
) -> dict[str, str]:
    """The tags of a run. Raises ConfigurationError for assets that are not the job's, and for parameters that cannot be written down."""
    found: dict[str, str] = {}
    if patterns:
        found[SELECT] = " ".join(_selected(assembly, job, patterns))
    if parameters:
        found[PARAMETERS] = _json(parameters)
    return found | {tag: "true" for tag, given in {FROM_START: from_start, PAST_GUARD: past_guard}.items() if given}


def _selected(assembly: Assembly, job: str, patterns: Sequence[str]) -> list[str]:
    whole, found = select(assembly, assembly.jobs[job].select), select(assembly, patterns)
    others = [asset for asset in found if asset not in whole]
    if others:
        what = f"{', '.join(others[:5])}: not what the job {job} runs"
        raise ConfigurationError([Problem("select", what, did_you_mean(others[0], whole))])
    return found


def _json(parameters: Mapping[str, Any]) -> str:
    try:
        text = orjson.dumps(dict(parameters), option=orjson.OPT_SORT_KEYS).decode()
    except (TypeError, ValueError, RecursionError):
        raise ConfigurationError([Problem("parameters", "hold what JSON and UTF-8 have no word for", "leave it out")]) from None
    if len(text) > _LONGEST or "\\u0000" in text:
        do = "put what is large where the transform can read it"
        raise ConfigurationError([Problem("parameters", "have more than 16 KiB, or the character NUL", do)])
    return text
