"""Jobs made sure of: what they select, when they run, whom they tell. Those of the state stand beside those of the file."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import BaseModel, TypeAdapter, ValidationError

from muxly_dagster.assembly.building import Place, build
from muxly_dagster.assembly.notices import check_notices
from muxly_dagster.assembly.parts import Told
from muxly_dagster.assembly.ticks import ever_comes
from muxly_dagster.destination import Destination
from muxly_dagster.errors import ConfigurationError, MuxlyError, Problem
from muxly_dagster.project.checks import did_you_mean, is_secret, models_in
from muxly_dagster.project.environment import interpolate
from muxly_dagster.project.locate import Node, Segment
from muxly_dagster.project.models import JobSpec, NameInDagster, Project, TargetSpec
from muxly_dagster.project.references import check_job, selectable
from muxly_dagster.state.jobs import StoredJob

_REFERENCES = re.compile(r"(\$\{[A-Za-z_][A-Za-z0-9_]*\})+")


def declared_jobs(project: Project, destinations: Mapping[str, Destination], problems: list[Problem]) -> dict[str, Told]:
    """Check the jobs that the project declares; answers whom each tells, and under "" whom runs of no job tell."""
    path: Place = ()
    everybody = Told(
        _recipients(project, destinations, (*path, "on_failure"), project.on_failure, problems),
        _recipients(project, destinations, (*path, "on_recovery"), project.on_recovery, problems),
    )
    told, known = {"": everybody}, selectable(project)
    for name, job in project.jobs.items():
        told[name] = _checked(project, known, destinations, everybody, name, job, problems)
    return told


def made_jobs(
    project: Project, destinations: Mapping[str, Destination], everybody: Told, made: Iterable[StoredJob], environ: Mapping[str, str]
) -> tuple[dict[str, JobSpec], dict[str, Told], dict[str, tuple[Problem, ...]]]:
    """The jobs of the state that fit into the project, whom they tell, and what is wrong with the others."""
    jobs: dict[str, JobSpec] = {}
    told: dict[str, Told] = {}
    unfit: dict[str, tuple[Problem, ...]] = {}
    for stored in made:
        problems: list[Problem] = []
        job, whom = read_job(project, destinations, everybody, stored.name, stored.spec or {}, environ, problems)
        if job is None or problems:
            unfit[stored.name] = tuple(dict.fromkeys(problems))
        else:
            jobs[stored.name], told[stored.name] = job, whom
    return jobs, told, unfit


def read_job(
    project: Project,
    destinations: Mapping[str, Destination],
    everybody: Told,
    name: str,
    spec: Mapping[str, Any],
    environ: Mapping[str, str],
    problems: list[Problem],
) -> tuple[JobSpec | None, Told]:
    """A job that stands in no file, read and checked as if it stood in muxly.yaml; the variables it names are filled from `environ`."""
    node = _node(spec)
    _check_name(project, name, problems)
    tree = Node({"jobs": Node({name: node})})
    problems += interpolate(tree, environ)
    project = project.with_job(name, node)
    try:
        job = JobSpec.model_validate(node.plain())
    except ValidationError as error:
        problems += project.problems_at(("jobs", name), error, JobSpec)
        return None, everybody
    return job, _checked(project, selectable(project), destinations, everybody, name, job, problems)


def check_secrets(spec: Mapping[str, Any], destinations: Mapping[str, Destination]) -> None:
    """Raise ConfigurationError for a job that has a secret written out in it: it would lie in the database for all to read."""
    found = _written_out(spec, [JobSpec], (), secret=False)
    for field in ("on_failure", "on_recovery"):
        entries = spec.get(field)
        for at, entry in enumerate(entries) if isinstance(entries, list) else [(None, entries)]:
            for name, config in entry.items() if isinstance(entry, Mapping) else ():
                kinds = [type(destinations[name])] if name in destinations else []
                found += _written_out(config, kinds, (field, *([] if at is None else [at]), name), secret=False)
    problems = [
        Problem(
            ".".join(map(str, path)),
            "is a secret, which Muxly does not keep: it would lie in the database as it is",
            "put it into an environment variable where Muxly runs, and write ${NAME} here",
        )
        for path in found
    ]
    if problems:
        raise ConfigurationError(problems)


# ---- one job


def _checked(
    project: Project,
    known: Mapping[str, int],
    destinations: Mapping[str, Destination],
    everybody: Told,
    name: str,
    job: JobSpec,
    problems: list[Problem],
) -> Told:
    check_job(project, known, name, job, problems)
    _check_cron(project, name, job, problems)
    own = {
        field: _recipients(project, destinations, ("jobs", name, field), getattr(job, field), problems)
        for field in ("on_failure", "on_recovery")
    }
    silent = {field for field in own if field in job.model_fields_set and not getattr(job, field)}
    return Told(
        {} if "on_failure" in silent else {**everybody.failure, **own["on_failure"]},
        {} if "on_recovery" in silent else {**everybody.recovery, **own["on_recovery"]},
    )


def _check_cron(project: Project, name: str, job: JobSpec, problems: list[Problem]) -> None:
    """Dagster itself judges: it is the one who will read the expression."""
    try:
        dg.ScheduleDefinition(name="checked", job_name="checked", cron_schedule=job.cron or "@daily")
    except dg.DagsterInvalidDefinitionError:
        do = "write five fields (minute hour day month weekday), such as */15 * * * *, or @hourly or @daily"
        problems.append(project.problem(("jobs", name, "cron"), f"{job.cron!r} is not a cron expression", do))
        return
    if job.cron and not ever_comes(job.cron):
        do = "name days that there are, and either a day of the month or one of the week"
        problems.append(project.problem(("jobs", name, "cron"), f"Dagster finds no moment for {job.cron!r}", do))


def _check_name(project: Project, name: str, problems: list[Problem]) -> None:
    """Sources, transforms, routes and jobs share one namespace, wherever they stand."""
    try:
        TypeAdapter(NameInDagster).validate_python(name)
    except ValidationError as error:
        problems.append(Problem(f"jobs.{name}", error.errors()[0]["msg"]))
    for section in ("sources", "transforms", "routes", "jobs"):
        if name in getattr(project, section):
            where = str(project.file.name)
            what = f"{where} has {name} among its {section} already"
            problems.append(Problem(f"jobs.{name}", what, "give one of the two another name"))


def _recipients(
    project: Project, destinations: Mapping[str, Destination], path: Place, entries: Sequence[TargetSpec], problems: list[Problem]
) -> dict[str, Destination]:
    found: dict[str, Destination] = {}
    for entry in entries:
        at, name = (*path, *entry.at), entry.destination
        if name in found:
            problems.append(project.problem(at, f"names the destination {name} twice", "remove one of the two"))
        elif name in destinations:
            told: Destination | None = destinations[name]
            if entry.config:
                config = project.destinations[name].config | entry.config
                told = build(project, at, type(destinations[name]), config, problems)
            if told is not None:
                found[name] = told
                try:
                    check_notices(name, told)
                except MuxlyError as error:
                    do = f"say here what is different for notices: `{name}: {{...}}`, or name another destination"
                    problems.append(project.problem(at, f"a notice cannot be sent to {name}: {_what(error)}", do))
        elif name not in project.destinations and not project.is_broken("destinations", name):
            problems.append(project.problem(at, f"there is no destination {name}", did_you_mean(name, project.destinations)))
    return found


def _what(error: MuxlyError) -> str:
    return error.problems[0].what if isinstance(error, ConfigurationError) else error.what


# ---- what stands in no file


def _node(value: Any) -> Node:
    if isinstance(value, Mapping):
        return Node({str(key): _node(each) for key, each in value.items()})
    return Node([_node(each) for each in value]) if isinstance(value, list) else Node(value)


def _written_out(value: Any, models: Sequence[type[BaseModel]], path: tuple[Segment, ...], *, secret: bool) -> list[tuple[Segment, ...]]:
    """Where a secret stands in what is to be read by one of these models, other than as the name of a variable."""
    if isinstance(value, Mapping):
        found = []
        for key, each in value.items():
            fields = [info for model in models for name, info in model.model_fields.items() if key in (name, info.alias)]
            below = [inner for info in fields for inner in models_in(info.annotation)]
            held = secret or any(is_secret(info.annotation) for info in fields)
            found += _written_out(each, below, (*path, str(key)), secret=held)
        return found
    if isinstance(value, list):
        return [at for index, each in enumerate(value) for at in _written_out(each, models, (*path, index), secret=secret)]
    text = value if isinstance(value, str) else json.dumps(value)
    return [path] if secret and value not in (None, "") and not _REFERENCES.fullmatch(text) else []
