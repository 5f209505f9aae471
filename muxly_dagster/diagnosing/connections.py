"""Sources and destinations, each tried as `muxly check` tries it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from muxly_dagster import trying
from muxly_dagster.connector import Connector
from muxly_dagster.destination import Destination
from muxly_dagster.diagnosing.finding import Finding, Subject


def checks(subject: Subject) -> Mapping[str, Callable[[], Sequence[Finding]]]:
    """A check for each source and destination; none where nobody should be asked."""
    assembly = subject.assembly
    if assembly is None:
        return {}
    things: list[tuple[str, Connector | Destination]] = [(f"source {name}", source) for name, source in assembly.sources.items()]
    things += [(f"destination {name}", destination) for name, destination in assembly.destinations.items()]
    if subject.offline:
        return {"sources and destinations": lambda: [Finding("sources and destinations", "skipped", f"{len(things)} were not tried")]}
    return {name: partial(_tried, name, thing) for name, thing in things}


def _tried(name: str, thing: Connector | Destination) -> Sequence[Finding]:
    result = trying.try_out(thing)
    return [Finding(name, result.status, f"{result.tried}: {result.what}" if result.what else result.tried, result.do)]
