"""All checks together, those that may take long at the same time."""

from collections.abc import Callable, Sequence
from functools import partial

from muxly_dagster.diagnosing import connections, installation, orchestration, standing, storage
from muxly_dagster.diagnosing.finding import Check, Finding, Subject, all_of, failed
from muxly_dagster.errors import MuxlyError

SECONDS = 30.0
"""How long all checks may take together."""

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
    found = [*installation.look()]
    jobs: dict[str, Callable[[], Sequence[Finding]]] = {name: partial(check, subject) for name, check in _PLACES}
    jobs |= connections.checks(subject)
    try:
        # Before the others, which open it too: a fresh one is made by one of them only.
        home = list(orchestration.dagster_home(subject))
        jobs |= {name: partial(check, subject) for name, check in _DAGSTER}
    except MuxlyError as error:
        home = [failed("dagster home", error)]
    jobs |= {name: partial(check, subject) for name, check in _STANDING}
    places = len(_PLACES) + len(connections.checks(subject))
    rest = all_of(jobs, seconds)
    names = list(jobs)[:places]
    before = [finding for finding in rest if finding.check in names]
    behind = [finding for finding in rest if finding.check not in names]
    return [*found, *before, *home, *behind]
