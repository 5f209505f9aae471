"""What a muxly.yaml may say, as models: sources, transforms, routes, destinations and jobs."""

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from muxly_dagster.connector import Contract
from muxly_dagster.errors import Problem
from muxly_dagster.measures import Share, parse_duration
from muxly_dagster.project.checks import problem_at, problems_in
from muxly_dagster.project.locate import Node, Segment
from muxly_dagster.project.webhooks import WebhookSpec

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SQL_SCHEMAS = ("main", "temp", "system", "memory", "information_schema", "pg_catalog")
_LONGEST_NAME = 200  # a lock's file is called like the job, and more
_DAGSTERS = frozenset(
    {"arg_dict", "conf", "config", "context", "input", "input_arg_dict", "meta", "output", "output_arg_dict"}
    | {"bool", "dict", "float", "int", "str", "type"}
    | {*keyword.kwlist}
)
"""What Dagster calls no job and no step (DISALLOWED_NAMES of dagster/_core/definitions/utils.py, 1.13.27)."""


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise PydanticCustomError("name", "is not a name: a name is a lower-case letter, then lower-case letters, digits and underscores")
    if text in _SQL_SCHEMAS or text == "muxly" or text.startswith("muxly_"):
        raise PydanticCustomError("name", "is a name that Muxly or SQL keeps for itself")
    return text


def _name_in_dagster(text: str) -> str:
    if text in _DAGSTERS:
        raise PydanticCustomError("name", "is a name that Python or Dagster keeps for itself")
    if len(text) > _LONGEST_NAME:
        raise PydanticCustomError("name", "is too long for a name: {most} characters are the most", {"most": _LONGEST_NAME})
    return text


def _empty_map(value: Any) -> Any:
    return {} if value is None else value


def _empty_list(value: Any) -> Any:
    return [] if value is None else value


def _list_of_one(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _duration(text: str) -> str:
    if text:
        try:
            parse_duration(text)
        except ValueError as error:
            raise PydanticCustomError("duration", "{why}", {"why": str(error)}) from None
    return text


def _named_maps(value: Any) -> Any:
    """`[contacts, deals]` and `{contacts: }` as `{contacts: {}, deals: {}}`."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return {item: {} for item in value}
    if isinstance(value, dict):
        return {key: _empty_map(item) for key, item in value.items()}
    return _empty_map(value)


def _one_name_each(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for step in steps:
        if len(step) != 1:
            raise PydanticCustomError(
                "transform", "has a step with {count} names: write every step as `- name: settings`", {"count": len(step)}
            )
    return steps


def _steps(value: Any) -> Any:
    return [{item: {}} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


Name = Annotated[str, AfterValidator(_name)]
NameInDagster = Annotated[Name, AfterValidator(_name_in_dagster)]
"""A name of what is a job or a step in Dagster as it stands."""
Duration = Annotated[str, AfterValidator(_duration)]
Names = Annotated[list[str], BeforeValidator(_list_of_one)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class _OpenSpec(_Spec):
    """A model whose other keys are somebody else's fields: they are gathered under `config` and checked there."""

    config: dict[str, Any] = Field(default={}, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        own = {key: item for key, item in value.items() if key in cls.model_fields and key != "config"}
        return own | {"config": {key: item for key, item in value.items() if key not in own}}


class SourceSpec(_OpenSpec):
    """A connector with its settings and credentials; `config` holds the connector's own fields, `auth` among them."""

    connector: str | dict[str, Any] = Field(
        description="The connector's id, the path of a manifest, beginning at this file's folder, or a manifest itself."
    )
    pulls: Annotated[dict[Name, dict[str, Any]], BeforeValidator(_named_maps)] = Field(
        {}, description="What is pulled, by name: a list of names, or a map of names to settings."
    )


class DestinationSpec(_OpenSpec):
    """A place that takes records; `config` holds the fields of its type."""

    type: str = Field(description="The type of destination.")


class TransformSpec(_Spec):
    """A table made from other tables, written as `sql`, `steps` or `python`."""

    sql: str | None = Field(None, description="One SELECT in DuckDB's SQL; a pull's table is `source.pull`, a transform's is its name.")
    steps: Annotated[list[dict[str, Any]], BeforeValidator(_steps)] | None = Field(
        None, min_length=1, description="Steps done one after the other, each `{name: settings}`."
    )
    python: str | None = Field(None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="A Python function, written `module:function`.")
    from_: Names = Field([], alias="from", description="The tables that `steps` (exactly one) or `python` read.")
    key: Names = Field([], description="Columns that identify a record; without them, its whole content does.")
    contract: Contract = Field("evolve", description="What happens when columns appear or change type: evolve, freeze or discard.")
    description: str = Field("", description="Shown in the Dagster UI.")
    owners: list[str] = Field([], description="E-mail addresses or `team:NAME`, shown in the Dagster UI.")
    group: str = Field("", description="Asset group in the Dagster UI.")
    freshness: Duration = Field("", description="Warn when the table is older than this, such as `2h` or `1d`.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [way for way in ("sql", "steps", "python") if getattr(self, way) is not None]
        if len(ways) != 1:
            said = "has " + " and ".join(ways) if ways else "has none of sql, steps and python"
            raise PydanticCustomError("transform", "{said}: a transform is written in exactly one of the three", {"said": said})
        if self.sql is not None and self.from_:
            raise PydanticCustomError("transform", "has both sql and from: the query itself names the tables it reads; remove from")
        if self.steps is not None and len(self.from_) != 1:
            raise PydanticCustomError("transform", "has steps, so it needs `from` with exactly one table")
        if self.python is not None and not self.from_:
            raise PydanticCustomError("transform", "has python, so it needs `from` with the tables that the function receives")
        _one_name_each(self.steps or [])
        return self


class TargetSpec(_Spec):
    """One destination that a rule names, with the settings that differ there. `at` is where it stands under `to`."""

    destination: str
    config: dict[str, Any] = Field(default={}, repr=False)
    at: tuple[Segment, ...] = Field(default=(), exclude=True, repr=False)


def _targets(value: Any) -> Any:
    """`warehouse`, `[warehouse, {archive: {format: csv}}]` and `{warehouse: {table: deals}}` as a list of TargetSpec."""
    if isinstance(value, str):
        return [TargetSpec(destination=value)]
    entries = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
    targets: list[Any] = []
    for index, entry in entries:
        at: tuple[Segment, ...] = () if index is None else (index,)
        if isinstance(entry, str):
            targets.append(TargetSpec(destination=entry, at=at))
        elif isinstance(entry, Mapping) and entry and all(isinstance(item, dict | None) for item in entry.values()):
            targets += [TargetSpec(destination=str(name), config=config or {}, at=(*at, str(name))) for name, config in entry.items()]
        elif isinstance(entry, TargetSpec):
            targets.append(entry)
        else:
            raise PydanticCustomError("to", "is not a destination's name, `{name: {settings}}` or a list of these", {})
    return targets


Targets = Annotated[list[TargetSpec], BeforeValidator(_targets)]


Steps = Annotated[list[dict[str, Any]], BeforeValidator(_steps), AfterValidator(_one_name_each)]


class RuleSpec(_Spec):
    """One rule of a route: records for which `when` is true go to `to`."""

    name: str = Field("", description="What the rule is called in receipts and by `muxly trace`.")
    when: str | None = Field(None, description="A SQL condition over the record's columns; without it, every record matches.")
    to: Targets = Field(description="Destinations: a name, `{name: {settings}}` for settings of this route's own, or a list of these.")
    sample: Share = Field("", description="Only this share of the keys, such as `10%`; a key is always in the sample or never.")
    steps: Steps = Field([], description="Transform steps done to the rule's records on their way, behind those of the route.")
    template: dict[str, Any] = Field(
        {}, description="What messages about the rule's records say, in place of the destination's own templates: `{text: ...}`."
    )


class RouteSpec(_Spec):
    """Which changed records of one table go where: `to` for all of them, or `rules`."""

    from_: str = Field(alias="from", description="The table whose changes are routed: `source.pull` or a transform's name.")
    to: Targets = Field([], description="Destinations of every record.")
    rules: list[RuleSpec] = Field([], description="Rules, tried in this order.")
    otherwise: Targets = Field([], description="Destinations of records that no rule matches; without it they go nowhere, and are counted.")
    match: Literal["first", "all"] = Field("first", description="Whether the first rule that matches decides, or all that match.")
    steps: Steps = Field([], description="Transform steps done to all records on their way; rules see the records as they were.")
    description: str = Field("", description="Shown in the Dagster UI.")
    owners: list[str] = Field([], description="E-mail addresses or `team:NAME`, shown in the Dagster UI.")
    group: str = Field("", description="Asset group in the Dagster UI.")

    @model_validator(mode="after")
    def _to_or_rules(self) -> Self:
        if bool(self.to) == bool(self.rules):
            said = "has both `to` and `rules`" if self.to else "has neither `to` nor `rules`"
            raise PydanticCustomError("route", "{said}: `to` is for all records, `rules` for a choice; give one of them", {"said": said})
        if self.otherwise and not self.rules:
            raise PydanticCustomError("route", "has `otherwise` but no `rules`: with `to` every record is routed; remove otherwise")
        return self


class JobSpec(_Spec):
    """What runs together, and when."""

    select: Annotated[Names, Field(min_length=1)] = Field(
        description="Sources, pulls, transforms, routes or `route.destination`; `+name` adds all it needs, `name+` all that follows."
    )
    cron: str = Field("", description="When it runs, as five cron fields or `@daily`; without it, only on demand.")
    timezone: str = Field("UTC", description="The time zone that `cron` is in, such as Europe/Berlin.")
    catch_up: Literal["last", "all", "none"] = Field(
        "last", description="What of it that was missed while Muxly was down is made up for: one run, each of them, or nothing."
    )
    jitter: Duration = Field("", description="Each run begins up to this much later, such as `30s`, so that not everything begins at once.")
    webhook: WebhookSpec | None = Field(None, description="Lets signed calls of another service start the job.")
    description: str = Field("", description="Shown in the Dagster UI.")
    enabled: bool = Field(True, description="Whether the schedule starts switched on.")
    on_failure: Targets = Field([], description="Destinations that are told when a run fails, in the same forms as `to`.")
    on_recovery: Targets = Field([], description="Destinations that are told when a run succeeds again after one that failed.")

    @model_validator(mode="after")
    def _with_cron(self) -> Self:
        for name in ("catch_up", "jitter"):
            if name in self.model_fields_set and not self.cron:
                raise PydanticCustomError("job", "has {name} but no cron: it only says how a schedule is kept", {"name": name})
        return self


class Project(_Spec):
    """Everything a muxly.yaml declares."""

    name: str = Field("muxly", description="What the project is called in the Dagster UI.")
    description: str = Field("", description="Shown in the Dagster UI.")
    plugins: Annotated[Names, BeforeValidator(_empty_list)] = Field(
        [], description="Plugins that are enabled: packages or ids by name, folders and files by path."
    )
    sources: Annotated[dict[Name, SourceSpec], BeforeValidator(_empty_map)] = Field({}, description="Where records come from, by name.")
    transforms: Annotated[dict[NameInDagster, TransformSpec], BeforeValidator(_empty_map)] = Field(
        {}, description="Tables made from tables, by name."
    )
    routes: Annotated[dict[Name, RouteSpec], BeforeValidator(_empty_map)] = Field({}, description="Which records go where, by name.")
    destinations: Annotated[dict[Name, DestinationSpec], BeforeValidator(_empty_map)] = Field({}, description="Where records go, by name.")
    jobs: Annotated[dict[NameInDagster, JobSpec], BeforeValidator(_empty_map)] = Field(
        {}, description="What runs together and when, by name."
    )
    on_failure: Targets = Field([], description="Destinations that are told when a run fails, whatever job it is of.")
    on_recovery: Targets = Field([], description="Destinations that are told when a run succeeds again after one that failed.")
    retention_days: int = Field(30, ge=1, description="Days for which run history, delivered changes and dead letters are kept.")

    _file: Path = PrivateAttr(default_factory=lambda: Path("muxly.yaml"))
    _tree: Node = PrivateAttr(default_factory=lambda: Node({}))
    _broken: frozenset[tuple[str, str]] = PrivateAttr(frozenset())

    @property
    def file(self) -> Path:
        """The file the project was loaded from."""
        return self._file

    @property
    def folder(self) -> Path:
        """The folder that paths in the project begin at."""
        return self._file.parent

    def is_broken(self, section: str, name: str) -> bool:
        """Whether an entry was left out because it has problems of its own, so that what refers to it is not to blame."""
        return (section, name) in self._broken or (section, "") in self._broken

    def with_pulls(self, selected: Mapping[str, Mapping[str, dict[str, Any]]], unknown: Iterable[str]) -> Self:
        """The project with these pulls beside those that it declares, by source. The sources `unknown` may have more that nobody knows."""
        sources = {n: s.model_copy(update={"pulls": {**s.pulls, **selected.get(n, {})}}) for n, s in self.sources.items()}
        project = self.model_copy(update={"sources": sources})
        project._broken = self._broken | {("sources", name) for name in unknown}
        return project

    def with_job(self, name: str, node: Node) -> Self:
        """The project with a declaration of one more job in its tree, which stands in no file: problems of it can be told."""
        project = self.model_copy()
        jobs = self._tree.child("jobs")
        there = jobs.value if jobs is not None and isinstance(jobs.value, dict) else {}
        project._tree = Node({**self._tree.value, "jobs": Node({**there, name: node})}, self._tree.at)
        return project

    def problem(self, path: Sequence[Segment], what: str, do: str = "") -> Problem:
        """A problem at a path of the declaration, with the file, line and column it stands at."""
        return problem_at(self._tree, path, what, do)

    def problems_at(self, path: Sequence[Segment], error: ValidationError, model: type[BaseModel]) -> list[Problem]:
        """What `model` says against the declaration at `path`: positioned, with did-you-mean, without any secret."""
        return problems_in(self._tree, path, error, model)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a declaration that somebody else reads, such as a manifest in a source, with the place of everything in it."""

    project: Project
    path: tuple[Segment, ...]
    data: Any

    @property
    def incomplete(self) -> bool:
        """Whether an environment variable is missing in it, which is a problem that has been told."""
        node = self.project._tree.find(self.path)
        return node is not None and any(below.missing for below in node.walk())

    def problem(self, path: Sequence[Segment], what: str, do: str = "") -> Problem:
        """A problem at a path of the part."""
        return self.project.problem((*self.path, *path), what, do)


def located(project: Project, file: Path, tree: Node, broken: frozenset[tuple[str, str]] = frozenset()) -> Project:
    """The project, knowing the file and tree it was read from and the entries that were left out of it."""
    project._file, project._tree, project._broken = file, tree, broken
    return project
