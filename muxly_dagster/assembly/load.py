"""From a muxly.yaml to an assembly, with everything that is wrong told at once."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from muxly_dagster import catalog as built_in
from muxly_dagster import sandbox
from muxly_dagster.assembly.building import Place, build, parse_step, placed
from muxly_dagster.assembly.calls import unheard
from muxly_dagster.assembly.jobs import declared_jobs, made_jobs
from muxly_dagster.assembly.parts import Assembly, Pull, Target, Transform
from muxly_dagster.assembly.routes import route_targets
from muxly_dagster.catalog import Catalog, Extended, enable_plugins, inline_connector
from muxly_dagster.connector import Connector
from muxly_dagster.destination import Destination
from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.plugins import SECONDS, seconds_from
from muxly_dagster.project.load import read_project
from muxly_dagster.project.models import Part, Project
from muxly_dagster.project.references import (
    check_cycles,
    check_freshness,
    declared_table,
    declared_tables,
    shared_names,
)
from muxly_dagster.selecting import Asking, Selections
from muxly_dagster.state.jobs import StoredJob


def load_assembly(
    path: Path,
    environ: Mapping[str, str],
    catalog: Catalog = built_in,
    *,
    home: Path | None = None,
    ask: Asking = "once",
    made: Sequence[StoredJob] = (),
) -> Assembly:
    """Load and assemble the project at `path`. Raises one ConfigurationError with what either finds, so that one look shows it all.

    What patterns select is asked at the sources' providers as `ask` says, and kept under `home`. `made` are the jobs that were made by the
    API; those that no longer fit are left out, with a warning.
    """
    project, problems = read_project(path, environ)
    selections = Selections(home, ask)
    assembly, more = _assembled(project, catalog, selections, seconds_from(environ))
    if problems or more:
        raise ConfigurationError(_in_order([*problems, *more, *assembly.warnings]))
    selections.keep()
    return _with_made(assembly, made, environ)


def _with_made(assembly: Assembly, made: Sequence[StoredJob], environ: Mapping[str, str]) -> Assembly:
    jobs, told, unfit = made_jobs(assembly.project, assembly.destinations, assembly.told[""], made, environ)
    warnings = tuple(
        dataclasses.replace(problem, what=f"{problem.what}; the job, which was made by the API, is left out")
        for problems in unfit.values()
        for problem in problems
    )
    jobs = {**assembly.jobs, **jobs}
    return dataclasses.replace(
        assembly,
        jobs=jobs,
        told={**assembly.told, **told},
        unfit=unfit,
        warnings=(*assembly.warnings, *warnings, *unheard(assembly.project, assembly.pulls, jobs)),
    )


def assemble(project: Project, catalog: Catalog = built_in) -> Assembly:
    """Resolve everything that the project names, asking no provider. Raises one ConfigurationError with every problem found."""
    assembly, problems = _assembled(project, catalog, Selections(ask="never"))
    if problems:
        raise ConfigurationError(_in_order([*problems, *assembly.warnings]))
    return assembly


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
        targets |= route_targets(project, catalog, known, name, spec, pulls, transforms, destinations, problems)
    signing = [("sources", n, source) for n, source in sources.items()] + [("destinations", n, each) for n, each in destinations.items()]
    for section, name, thing in [*signing, *(("destinations", t.destination_name, t.destination) for t in targets.values())]:
        try:
            plugins.let_sign_in(thing)
        except ConfigurationError as error:
            problems += placed(project, (section, name, "auth", "use"), error)
    told = declared_jobs(project, destinations, problems)
    return Assembly(
        project,
        sources,
        destinations,
        pulls,
        transforms,
        targets,
        project.jobs,
        tuple(warnings),
        tuple(selections.news),
        told=told,
    ), problems


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Each once, file by file, from top to bottom, as people go through them."""
    unique = list(dict.fromkeys(problems))
    files = list(dict.fromkeys(problem.file for problem in unique))
    return sorted(unique, key=lambda p: (files.index(p.file), p.line, p.column))


def _sources(
    project: Project, catalog: Catalog, selections: Selections, problems: list[Problem]
) -> tuple[dict[str, Connector], dict[str, Pull]]:
    sources: dict[str, Connector] = {}
    pulls: dict[str, Pull] = {}
    for name, spec in project.sources.items():
        path: Place = ("sources", name)
        try:
            if isinstance(spec.connector, dict):
                kind = inline_connector(Part(project, (*path, "connector"), spec.connector), name)
            else:
                kind = catalog.connector_class(spec.connector, project.folder)
        except ConfigurationError as error:
            problems += placed(project, (*path, "connector"), error)
            continue
        connector = build(project, path, kind, spec.config, problems)
        if connector is not None:
            sources[name] = connector
        elif kind.selected is not Connector.selected:
            selections.missed(name)
        selected = selections.pulls(project, name, connector, problems) if connector is not None else {}
        for pull_name, said in (spec.pulls | selected).items():
            at = (*path, "pulls", pull_name)
            settings = build(project, at, kind.Pull, said | {"stream": said.get("stream") or pull_name}, problems)
            if settings is None or not check_freshness(project, at, settings.freshness, problems) or connector is None:
                continue
            try:
                stream = connector.stream(settings)
            except ConfigurationError as error:
                problems += placed(project, at, error)
                continue
            if type(connector).stored is not Connector.stored and (other := _reader(pulls, name, stream.name)) is not None:
                # What one of them has stored is let go of, and the other would never see it.
                what, do = f"reads the stream {stream.name}, as {other} does", "a stream that empties has one pull; give it another stream"
                problems.append(project.problem(at, what, do))
            key = stream.key if settings.key is None else tuple(settings.key)
            stream = dataclasses.replace(stream, key=key, contract=settings.contract or stream.contract)
            pulls[f"{name}.{pull_name}"] = Pull(f"{name}.{pull_name}", name, connector, settings, stream)
    return sources, pulls


def _reader(pulls: Mapping[str, Pull], source: str, stream: str) -> str | None:
    """The pull that reads a source's stream already."""
    return next((pull.name for pull in pulls.values() if (pull.source, pull.stream.name) == (source, stream)), None)


def _destinations(project: Project, catalog: Catalog, problems: list[Problem]) -> dict[str, Destination]:
    destinations: dict[str, Destination] = {}
    for name, spec in project.destinations.items():
        try:
            kind = catalog.destination_class(spec.type)
        except ConfigurationError as error:
            problems += placed(project, ("destinations", name, "type"), error)
            continue
        destination = build(project, ("destinations", name), kind, spec.config, problems)
        if destination is not None:
            destinations[name] = destination
    return destinations


# ---- transforms -----------------------------------------------------------------------------------------------------


def _transforms(project: Project, catalog: Catalog, known: Mapping[str, None], problems: list[Problem]) -> dict[str, Transform]:
    transforms: dict[str, Transform] = {}
    for name, spec in project.transforms.items():
        path: Place = ("transforms", name)
        named: Iterable[tuple[Place, str]] = [((*path, "from"), table) for table in spec.from_]
        if spec.sql is not None:
            try:
                named = [((*path, "sql"), table) for table in sandbox.read_query(spec.sql).tables]
            except ConfigurationError as error:
                problems += placed(project, (*path, "sql"), error)
        inputs = [table for at, said in named if (table := declared_table(project, known, said, at, problems)) is not None]
        steps = [
            parse_step(project, (*path, "steps", i), *next(iter(step.items())), catalog, problems)
            for i, step in enumerate(spec.steps or ())
        ]
        parsed = tuple(step for step in steps if step is not None)
        transforms[name] = Transform(name, spec, tuple(dict.fromkeys(inputs)), tuple(spec.key), parsed)
    check_cycles(project, {name: transform.inputs for name, transform in transforms.items()}, problems)
    return transforms
