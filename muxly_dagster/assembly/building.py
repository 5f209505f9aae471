"""Pieces of a project as models, each mistake with the place where it stands."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from muxly_dagster.catalog import Catalog
from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.project.locate import Segment
from muxly_dagster.project.models import Project
from muxly_dagster.project_paths import in_project
from muxly_dagster.transform import Step

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[Segment, ...]


def build(project: Project, path: Place, model: type[Model], values: Mapping[str, Any], problems: list[Problem]) -> Model | None:
    """The model of what stands at `path`; None, with problems, where it is wrong."""
    try:
        return model(**in_project(model, values, project.folder))
    except ValidationError as error:
        problems += project.problems_at(path, error, model)
    except ConfigurationError as error:
        problems += placed(project, path, error)
    return None


def placed(project: Project, path: Place, error: ConfigurationError) -> list[Problem]:
    """What somebody else found, at the place in the project that led there, unless it knows its own."""
    there = ".".join(map(str, path))
    return [
        p if p.file or p.path.startswith(there) else project.problem((*path, *(p.path.split(".") if p.path else ())), p.what, p.do)
        for p in error.problems
    ]


def parse_step(project: Project, path: Place, name: str, said: Any, catalog: Catalog, problems: list[Problem]) -> Step | None:
    """The transform step that stands at `path` as `{name: said}`; None, with problems, where it is wrong."""
    try:
        kind = catalog.step_class(name)
    except ConfigurationError as error:
        problems += placed(project, path, error)
        return None
    try:
        return kind.parse({} if said is None else said)
    except ValidationError as error:
        problems += project.problems_at((*path, name), error, kind)
    except ConfigurationError as error:
        problems += placed(project, (*path, name), error)
    return None
