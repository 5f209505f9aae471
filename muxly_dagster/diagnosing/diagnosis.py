"""All checks together, those that may take long at the same time."""

from collections.abc import Callable, Sequence
from functools import partial

from muxly_dagster.diagnosing import connections, installation, orchestration, standing, storage
from muxly_dagster.diagnosing.finding import Check, Finding, Subject, all_of, failed
from muxly_dagster.errors import MuxlyError

SECONDS = 30.0
"""How long a source or a destination may take."""

_SECONDS_HERE = 120.0
"""For what asks nobody else, which only a machine that is very busy makes slow."""

_PLACES: tuple[tuple[str, Check], ...] = (
    ("project", storage.project),
    ("home", storage.home),
    ("state database", storage.state),
    ("lake", storage.lake),
    ("secrets", storage.secrets),
    ("clock", storage.clock),
    ("ports", orchestration.ports),
)
_DAGSTER: tuple[tuple[str, Check], ...] = (
    ("code location", orchestration.code_location),
    ("code server", orchestration.code_server),
    ("daemon", orchestration.daemon),
    ("sensors and schedules", orchestration.switches),
    ("runs", orchestration.runs),
)
_STANDING: tuple[tuple[str, Check], ...] = (
    ("inbox", standing.inbox),
    ("starts of jobs", standing.starts),
    ("breakers", standing.breakers),
    ("deliveries", standing.lags),
    ("dead letters", standing.dead_letters),
    ("guard of the API", standing.guarded),
)


def diagnose(subject: Subject, seconds: float = SECONDS) -> list[Finding]:
    """Look at everything; in an order that people read from top to bottom. Raises nothing: what cannot be looked at is a finding."""
    try:
        # Before the others, which open it too: a fresh one is made by one of them only.
        home, dagster = list(orchestration.dagster_home(subject)), _DAGSTER
    except MuxlyError as error:
        home, dagster = [failed("dagster home", error)], ()
    connected = {name: (check, seconds) for name, check in connections.checks(subject).items()}
    before = _here(subject, _PLACES) | connected
    behind = _here(subject, (*dagster, *_STANDING))
    found = all_of(before | behind)
    first = [finding for finding in found if finding.check in before]
    return [*installation.look(), *first, *home, *(finding for finding in found if finding.check in behind)]


def _here(subject: Subject, checks: Sequence[tuple[str, Check]]) -> dict[str, tuple[Callable[[], Sequence[Finding]], float]]:
    return {name: (partial(check, subject), _SECONDS_HERE) for name, check in checks}
