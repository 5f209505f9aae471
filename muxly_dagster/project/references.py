"""Whether the names in a project mean something: tables, names that must differ, circles, selections of jobs."""

import graphlib
import zoneinfo
from collections.abc import Mapping, Sequence

from muxly_dagster.errors import Problem
from muxly_dagster.measures import parse_duration
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.project.locate import Segment
from muxly_dagster.project.models import JobSpec, Project, RouteSpec, TargetSpec
from muxly_dagster.project.selection import read_pattern

_Path = tuple[Segment, ...]


def shared_names(project: Project) -> list[Problem]:
    """Sources, transforms, routes and jobs share one namespace: a selection must mean one thing."""
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for section in ("sources", "transforms", "routes", "jobs"):
        for name in getattr(project, section):
            if name in seen:
                what = f"is the name of one of the {seen[name]} too, so `muxly run {name}` would be ambiguous"
                problems.append(project.problem((section, name), what, "rename one of the two"))
            seen.setdefault(name, section)
    return problems


def check_freshness(project: Project, path: _Path, text: str, problems: list[Problem]) -> bool:
    """Whether a length of time is one, or is not given at all."""
    try:
        return not text or bool(parse_duration(text))
    except ValueError as error:
        problems.append(project.problem((*path, "freshness"), str(error)))
        return False


def declared_tables(project: Project) -> dict[str, None]:
    """The names of all tables that the project declares, in their order."""
    return {f"{source}.{pull}": None for source, spec in project.sources.items() for pull in spec.pulls} | dict.fromkeys(project.transforms)


def declared_table(project: Project, known: Mapping[str, None], name: str, path: _Path, problems: list[Problem]) -> str | None:
    """The declared table that a name means (SQL does not mind case); None, with a problem, where there is none."""
    table = name.lower().replace("/", ".")
    if table in known:
        return table
    source = table.partition(".")[0]
    if not project.is_broken("sources", source) and not project.is_broken("transforms", table):
        problems.append(project.problem(path, f"there is no table {name}", did_you_mean(name, known)))
    return None


def check_cycles(project: Project, inputs: Mapping[str, Sequence[str]], problems: list[Problem]) -> None:
    """A problem for every circle of transforms, given the tables that each reads."""
    graph = {name: set(tables) for name, tables in inputs.items()}
    while True:
        try:
            tuple(graphlib.TopologicalSorter(graph).static_order())
            return
        except graphlib.CycleError as error:
            ring = error.args[1][:-1]
            first = min(range(len(ring)), key=lambda i: list(inputs).index(ring[i]))
            ring = ring[first:] + ring[:first]
            circle = " → ".join([*ring, ring[0]])
            problems.append(
                project.problem(("transforms", ring[0]), f"needs its own result: {circle}", "break the circle: let one read another table")
            )
            graph.pop(ring[0])


def places(path: _Path, spec: RouteSpec) -> list[tuple[_Path, list[TargetSpec]]]:
    """Where a route names destinations, and which."""
    rules: list[tuple[_Path, list[TargetSpec]]] = [((*path, "rules", index, "to"), rule.to) for index, rule in enumerate(spec.rules)]
    return [((*path, "to"), spec.to), *rules, ((*path, "otherwise"), spec.otherwise)]


def chosen_targets(project: Project, path: _Path, spec: RouteSpec, problems: list[Problem]) -> dict[str, tuple[_Path, TargetSpec]]:
    """A route's destinations, each once: it has one offset, so it can have one set of settings only."""
    chosen: dict[str, tuple[_Path, TargetSpec]] = {}
    for at, entries in places(path, spec):
        _choose(project, at, entries, chosen, problems)
    return chosen


def _choose(
    project: Project, path: _Path, entries: Sequence[TargetSpec], chosen: dict[str, tuple[_Path, TargetSpec]], problems: list[Problem]
) -> None:
    here: set[str] = set()
    for entry in entries:
        at, name = (*path, *entry.at), entry.destination
        if name not in project.destinations:
            if not project.is_broken("destinations", name):
                problems.append(project.problem(at, f"there is no destination {name}", did_you_mean(name, project.destinations)))
            continue
        if name in here:
            problems.append(project.problem(at, f"names the destination {name} twice", "remove one of the two"))
        here.add(name)
        known = chosen.get(name)
        if known is None or (entry.config and not known[1].config):
            chosen[name] = (at, entry)
        elif entry.config and entry.config != known[1].config:
            what = f"gives {name} other settings than the same route does elsewhere"
            problems.append(
                project.problem(at, what, "a route has one set of settings for a destination: make them equal, or use two routes")
            )


def check_job(project: Project, known: Mapping[str, int], name: str, job: JobSpec, problems: list[Problem]) -> None:
    """A problem for everything a job selects that is not there, for its time zone, and for its name where Dagster knows a step by it."""
    path: _Path = ("jobs", name)
    if step := next((asset for asset in known if "." in asset and asset.replace(".", "__") == name), None):
        problems.append(project.problem(path, f"{name} is what the step of {step} is called in Dagster", "give the job another name"))
    for index, pattern in enumerate(job.select):
        at: _Path = (*path, "select", index)
        selected = read_pattern(pattern).name
        head = selected.partition(".")[0]
        if selected in project.jobs:
            problems.append(project.problem(at, f"{selected} is a job; a job selects no other job", "name what that job selects"))
        elif known.get(selected) == 0:
            problems.append(project.problem(at, f"the source {selected} has no pulls", "give it pulls, or leave it out"))
        elif selected not in known and not any(project.is_broken(part, head) for part in ("sources", "transforms", "routes")):
            problems.append(project.problem(at, f"there is nothing called {selected} to run", did_you_mean(selected, known)))
    try:
        zoneinfo.ZoneInfo(job.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = did_you_mean(job.timezone, zoneinfo.available_timezones())
        do = near if near.startswith("did") else "name one such as UTC or Europe/Berlin"
        problems.append(project.problem((*path, "timezone"), f"there is no time zone {job.timezone}", do))


def selectable(project: Project) -> dict[str, int]:
    """All that a job may select, with the number of assets in it."""
    known = {"*": 1} | dict.fromkeys(project.transforms, 1)
    for source, spec in project.sources.items():
        if not project.is_broken("sources", source):
            known[source] = len(spec.pulls)
        known |= {f"{source}.{pull}": 1 for pull in spec.pulls}
    for route, route_spec in project.routes.items():
        known[route] = 1
        known |= {f"{route}.{entry.destination}": 1 for _, entries in places((), route_spec) for entry in entries}
    return known
