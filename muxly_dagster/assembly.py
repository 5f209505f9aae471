"""A declared project made ready to run: every name resolved to a connector, a transform, a rule set or a destination."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
from pydantic import BaseModel, ValidationError

from muxly_dagster import catalog as built_in
from muxly_dagster import sandbox
from muxly_dagster.catalog import Catalog, Extended, enable_plugins, inline_connector
from muxly_dagster.connector import Connector, PullSettings, Stream
from muxly_dagster.destination import Destination
from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.plugins import SECONDS, seconds_from
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.project.load import read_project
from muxly_dagster.project.locate import Segment
from muxly_dagster.project.models import JobSpec, Part, Project, RouteSpec, TargetSpec, TransformSpec
from muxly_dagster.project.references import (
    check_cycles,
    check_freshness,
    check_job,
    chosen_targets,
    declared_table,
    declared_tables,
    selectable,
    shared_names,
)
from muxly_dagster.project.selection import Names, Selection
from muxly_dagster.project_paths import in_project
from muxly_dagster.routing import Router, Rule
from muxly_dagster.selecting import Asking, Selections
from muxly_dagster.services import Services
from muxly_dagster.transform import Step

_Model = TypeVar("_Model", bound=BaseModel)
_Path = tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Pull:
    """One stream of one source on its way into the lake table of the same name ("crm.contacts")."""

    name: str
    source: str
    connector: Connector
    settings: PullSettings
    stream: Stream


@dataclass(frozen=True, slots=True)
class Transform:
    """One declared transform: `inputs` are the lake tables it reads, `steps` the parsed steps where it is written so."""

    name: str
    spec: TransformSpec
    inputs: tuple[str, ...]
    key: tuple[str, ...]
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """One destination of one route ("big_deals.warehouse"): has its own offset, receipts and dead letters.

    `destination` already carries the route's own settings for it; `table` is the lake table it reads and `key` its key;
    `destination_name` is its name under `destinations:`, which the router answers with.
    """

    name: str
    route: str
    spec: RouteSpec
    table: str
    key: tuple[str, ...]
    connector_id: str
    destination_name: str
    destination: Destination
    router: Router


@dataclass(frozen=True, slots=True)
class Assembly:
    """Everything a project runs, by name, in the order of declaration.

    `warnings` are plugins that are broken and that nothing uses, and sources whose pulls are not known; `news` says which pulls their
    patterns have come to select since the last time, or no longer do.
    """

    project: Project
    sources: Mapping[str, Connector]
    destinations: Mapping[str, Destination]
    pulls: Mapping[str, Pull]
    transforms: Mapping[str, Transform]
    targets: Mapping[str, Target]
    jobs: Mapping[str, JobSpec]
    warnings: tuple[Problem, ...] = ()
    news: tuple[str, ...] = ()

    def equipped(self, services: Services, of_pulls: Mapping[str, Services] | None = None) -> "Assembly":
        """The same with connectors and destinations that have these services; those of a pull, where it has its own."""
        own = of_pulls or {}
        sources = {name: connector.equipped(services) for name, connector in self.sources.items()}
        connectors = {n: sources[p.source].equipped(own[n]) if n in own else sources[p.source] for n, p in self.pulls.items()}
        pulls = {name: dataclasses.replace(pull, connector=connectors[name]) for name, pull in self.pulls.items()}
        destinations = {name: destination.equipped(services) for name, destination in self.destinations.items()}
        targets = {n: dataclasses.replace(target, destination=target.destination.equipped(services)) for n, target in self.targets.items()}
        return dataclasses.replace(self, sources=sources, pulls=pulls, destinations=destinations, targets=targets)


def load_assembly(
    path: Path, environ: Mapping[str, str], catalog: Catalog = built_in, *, home: Path | None = None, ask: Asking = "once"
) -> Assembly:
    """Load and assemble the project at `path`. Raises one ConfigurationError with what either finds, so that one look shows it all.

    What patterns select is asked at the sources' providers as `ask` says, and kept under `home`.
    """
    project, problems = read_project(path, environ)
    selections = Selections(home, ask)
    assembly, more = _assembled(project, catalog, selections, seconds_from(environ))
    if problems or more:
        raise ConfigurationError(_in_order([*problems, *more, *assembly.warnings]))
    selections.keep()
    return assembly


def assemble(project: Project, catalog: Catalog = built_in) -> Assembly:
    """Resolve everything that the project names, asking no provider. Raises one ConfigurationError with every problem found."""
    assembly, problems = _assembled(project, catalog, Selections(ask="never"))
    if problems:
        raise ConfigurationError(_in_order([*problems, *assembly.warnings]))
    return assembly


def select(assembly: Assembly, patterns: Sequence[str]) -> list[str]:
    """The assets that the patterns name, in an order in which they can run: pulls, transforms, deliveries.

    A pattern is a source, a pull, a transform, a route, a `route.destination`, a job or `*`; `+name` adds what it needs, `name+` what
    follows from it (`2+name`: two steps far). Raises ConfigurationError, with the nearest name, for one that is not there.
    """
    return _selection(assembly).select(patterns)


def parents(assembly: Assembly, name: str) -> tuple[str, ...]:
    """The tables that an asset reads."""
    if name in assembly.transforms:
        return assembly.transforms[name].inputs
    return (assembly.targets[name].table,) if name in assembly.targets else ()


def upstream(assembly: Assembly, name: str) -> list[str]:
    """All that an asset needs, directly or not, in an order in which it can run; without the asset itself."""
    return [asset for asset in _selection(assembly).select([f"+{name}"]) if asset != name]


def table_named(assembly: Assembly, said: str) -> str:
    """The pull or transform whose table is meant; letter case does not count in SQL. Raises ConfigurationError when there is none."""
    name = said.lower().replace("/", ".")
    if name not in assembly.pulls and name not in assembly.transforms:
        nearest = did_you_mean(said, [*assembly.pulls, *assembly.transforms])
        raise ConfigurationError(f"there is no table {said}", do=nearest or "declare a source with a pull first")
    return name


def _selection(assembly: Assembly) -> Selection:
    names = [*assembly.pulls, *assembly.transforms, *assembly.targets]
    groups: Names = {source: [] for source in assembly.sources}
    for pull in assembly.pulls.values():
        groups[pull.source].append(pull.name)
    for target in assembly.targets.values():
        groups.setdefault(target.route, []).append(target.name)
    jobs = {name: list(job.select) for name, job in assembly.jobs.items()}
    return Selection({name: parents(assembly, name) for name in names}, groups, jobs)


# ---- resolving ------------------------------------------------------------------------------------------------------


def _assembled(project: Project, catalog: Catalog, selections: Selections, seconds: float = SECONDS) -> tuple[Assembly, list[Problem]]:
    problems = shared_names(project)
    plugins = enable_plugins(project.plugins, project.folder, seconds)
    warnings = [project.problem(("plugins", notice.entry), notice.what, notice.do) for notice in plugins.notices]
    catalog = Extended(catalog, plugins)
    sources, pulls = _sources(project, catalog, selections, problems)
    project, warnings = selections.project(project), [*warnings, *selections.warnings]
    known = declared_tables(project)
    transforms = _transforms(project, catalog, known, problems)
    destinations = _destinations(project, catalog, problems)
    targets: dict[str, Target] = {}
    for name, spec in project.routes.items():
        targets |= _route(project, known, name, spec, pulls, transforms, destinations, problems)
    signing = [("sources", n, source) for n, source in sources.items()] + [("destinations", n, each) for n, each in destinations.items()]
    for section, name, thing in [*signing, *(("destinations", t.destination_name, t.destination) for t in targets.values())]:
        try:
            plugins.let_sign_in(thing)
        except ConfigurationError as error:
            problems += _placed(project, (section, name, "auth", "use"), error)
    selectables = selectable(project)
    for name, job in project.jobs.items():
        check_job(project, selectables, name, job, problems)
        _check_cron(project, name, job, problems)
    return Assembly(
        project, sources, destinations, pulls, transforms, targets, project.jobs, tuple(warnings), tuple(selections.news)
    ), problems


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Each once, file by file, from top to bottom, as people go through them."""
    unique = list(dict.fromkeys(problems))
    files = list(dict.fromkeys(problem.file for problem in unique))
    return sorted(unique, key=lambda p: (files.index(p.file), p.line, p.column))


def _build(project: Project, path: _Path, model: type[_Model], values: Mapping[str, Any], problems: list[Problem]) -> _Model | None:
    try:
        return model(**in_project(model, values, project.folder))
    except ValidationError as error:
        problems += project.problems_at(path, error, model)
    except ConfigurationError as error:
        problems += _placed(project, path, error)
    return None


def _placed(project: Project, path: _Path, error: ConfigurationError) -> list[Problem]:
    """What somebody else found, at the place in the project that led there, unless it knows its own."""
    there = ".".join(map(str, path))
    return [
        p if p.file or p.path.startswith(there) else project.problem((*path, *(p.path.split(".") if p.path else ())), p.what, p.do)
        for p in error.problems
    ]


def _sources(
    project: Project, catalog: Catalog, selections: Selections, problems: list[Problem]
) -> tuple[dict[str, Connector], dict[str, Pull]]:
    sources: dict[str, Connector] = {}
    pulls: dict[str, Pull] = {}
    for name, spec in project.sources.items():
        path: _Path = ("sources", name)
        try:
            if isinstance(spec.connector, dict):
                kind = inline_connector(Part(project, (*path, "connector"), spec.connector), name)
            else:
                kind = catalog.connector_class(spec.connector, project.folder)
        except ConfigurationError as error:
            problems += _placed(project, (*path, "connector"), error)
            continue
        connector = _build(project, path, kind, spec.config, problems)
        if connector is not None:
            sources[name] = connector
        elif kind.selected is not Connector.selected:
            selections.missed(name)
        selected = selections.pulls(project, name, connector, problems) if connector is not None else {}
        for pull_name, said in (spec.pulls | selected).items():
            at = (*path, "pulls", pull_name)
            settings = _build(project, at, kind.Pull, said | {"stream": said.get("stream") or pull_name}, problems)
            if settings is None or not check_freshness(project, at, settings.freshness, problems) or connector is None:
                continue
            try:
                stream = connector.stream(settings)
            except ConfigurationError as error:
                problems += _placed(project, at, error)
                continue
            key = stream.key if settings.key is None else tuple(settings.key)
            stream = dataclasses.replace(stream, key=key, contract=settings.contract or stream.contract)
            pulls[f"{name}.{pull_name}"] = Pull(f"{name}.{pull_name}", name, connector, settings, stream)
    return sources, pulls


def _destinations(project: Project, catalog: Catalog, problems: list[Problem]) -> dict[str, Destination]:
    destinations: dict[str, Destination] = {}
    for name, spec in project.destinations.items():
        try:
            kind = catalog.destination_class(spec.type)
        except ConfigurationError as error:
            problems += _placed(project, ("destinations", name, "type"), error)
            continue
        destination = _build(project, ("destinations", name), kind, spec.config, problems)
        if destination is not None:
            destinations[name] = destination
    return destinations


# ---- transforms -----------------------------------------------------------------------------------------------------


def _transforms(project: Project, catalog: Catalog, known: Mapping[str, None], problems: list[Problem]) -> dict[str, Transform]:
    transforms: dict[str, Transform] = {}
    for name, spec in project.transforms.items():
        path: _Path = ("transforms", name)
        named: Iterable[tuple[_Path, str]] = [((*path, "from"), table) for table in spec.from_]
        if spec.sql is not None:
            try:
                named = [((*path, "sql"), table) for table in sandbox.read_query(spec.sql).tables]
            except ConfigurationError as error:
                problems += _placed(project, (*path, "sql"), error)
        inputs = [table for at, said in named if (table := declared_table(project, known, said, at, problems)) is not None]
        steps = [
            _step(project, (*path, "steps", i), *next(iter(step.items())), catalog, problems) for i, step in enumerate(spec.steps or ())
        ]
        parsed = tuple(step for step in steps if step is not None)
        transforms[name] = Transform(name, spec, tuple(dict.fromkeys(inputs)), tuple(spec.key), parsed)
    check_cycles(project, {name: transform.inputs for name, transform in transforms.items()}, problems)
    return transforms


def _step(project: Project, path: _Path, name: str, said: Any, catalog: Catalog, problems: list[Problem]) -> Step | None:
    try:
        kind = catalog.step_class(name)
    except ConfigurationError as error:
        problems += _placed(project, path, error)
        return None
    try:
        return kind.parse({} if said is None else said)
    except ValidationError as error:
        problems += project.problems_at((*path, name), error, kind)
    except ConfigurationError as error:
        problems += _placed(project, (*path, name), error)
    return None


# ---- routes ---------------------------------------------------------------------------------------------------------


def _route(
    project: Project,
    known: Mapping[str, None],
    name: str,
    spec: RouteSpec,
    pulls: Mapping[str, Pull],
    transforms: Mapping[str, Transform],
    destinations: Mapping[str, Destination],
    problems: list[Problem],
) -> dict[str, Target]:
    path: _Path = ("routes", name)
    table = declared_table(project, known, spec.from_, (*path, "from"), problems)
    chosen = chosen_targets(project, path, spec, problems)
    rules = [Rule(rule.when, _to(rule.to), rule.name) for rule in spec.rules] or [Rule(None, _to(spec.to))]
    router = Router(rules, _to(spec.otherwise), spec.match)
    pull = pulls.get(table or "")
    _check_rules(project, path, spec, router, pull, problems)
    if pull is None and table not in transforms:
        return {}
    key = pull.stream.key if pull is not None else transforms[table or ""].key
    connector_id = pull.connector.id if pull is not None else "transform"
    targets: dict[str, Target] = {}
    for destination_name, (at, target) in chosen.items():
        destination = destinations.get(destination_name)
        if destination is not None and target.config:
            config = project.destinations[destination_name].config | target.config
            destination = _build(project, at, type(destination), config, problems)
        if destination is not None:
            full = f"{name}.{destination_name}"
            targets[full] = Target(full, name, spec, table or "", key, connector_id, destination_name, destination, router)
    return targets


def _to(entries: Sequence[TargetSpec]) -> tuple[str, ...]:
    return tuple(entry.destination for entry in entries)


def _check_rules(project: Project, path: _Path, spec: RouteSpec, router: Router, pull: Pull | None, problems: list[Problem]) -> None:
    if not spec.rules:
        return
    takes_all = next((i for i, rule in enumerate(spec.rules) if rule.when is None or rule.when.strip().lower() == "true"), None)
    if takes_all is not None and spec.otherwise:
        problems.append(
            project.problem((*path, "otherwise"), f"is never used: rule {takes_all + 1} takes every record", "remove one of the two")
        )
    if takes_all is not None and spec.match == "first" and takes_all + 1 < len(spec.rules):
        what = f"is never reached: rule {takes_all + 1} before it takes every record"
        problems.append(project.problem((*path, "rules", takes_all + 1), what, "put that rule last, or say `match: all`"))
    # Under `evolve` a declared schema is what is known so far, not all there is: only a closed one can prove a column unknown.
    closed = pull is not None and pull.stream.contract != "evolve"
    for index, message in router.problems(pull.stream.schema if pull is not None and closed else None):
        problems.append(project.problem((*path, "rules", index, "when"), message))


# ---- jobs -----------------------------------------------------------------------------------------------------------


def _check_cron(project: Project, name: str, job: JobSpec, problems: list[Problem]) -> None:
    """Dagster itself judges: it is the one who will read the expression."""
    try:
        dg.ScheduleDefinition(name="checked", job_name="checked", cron_schedule=job.cron or "@daily")
    except dg.DagsterInvalidDefinitionError:
        do = "write five fields (minute hour day month weekday), such as */15 * * * *, or @hourly or @daily"
        problems.append(project.problem(("jobs", name, "cron"), f"{job.cron!r} is not a cron expression", do))
