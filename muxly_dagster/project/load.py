"""A project from its files: read, merged, filled from the environment and checked, with every problem found at once."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.project.checks import problem_at, problems_in
from muxly_dagster.project.environment import interpolate, override
from muxly_dagster.project.locate import Node
from muxly_dagster.project.models import Project, located
from muxly_dagster.project.parse import SUFFIXES, parse_file

FOLDER = "muxly.d"


def load_project(path: Path, environ: Mapping[str, str]) -> Project:
    """The project that a file, or the muxly.* file of a folder, declares together with the files of a `muxly.d` folder beside it.

    `environ` fills `${NAME}` and overrides values with `MUXLY__...`. Raises ConfigurationError with all problems.
    """
    project, problems = read_project(path, environ)
    if problems:
        raise ConfigurationError(problems)
    return project


def read_project(path: Path, environ: Mapping[str, str]) -> tuple[Project, list[Problem]]:
    """As `load_project`, but what is sound is answered even where other entries have problems, so that it can be checked further.

    Raises ConfigurationError only where there is nothing to go on with: a file that is missing or does not parse.
    """
    files = project_files(path)
    root, problems = _merged(files)
    problems += override(root, environ)
    _expand_pulls(root)
    problems += interpolate(root, environ)
    values = root.plain()
    try:
        return located(Project.model_validate(values), files[0], root), problems
    except ValidationError as error:
        problems += problems_in(root, (), error, Project)
        broken = frozenset(_entry(detail["loc"]) for detail in error.errors(include_url=False, include_input=False))
    for section, name in broken:
        if name and isinstance(values.get(section), dict):
            values[section].pop(name, None)
        else:
            values.pop(section, None)
    try:
        return located(Project.model_validate(values), files[0], root, broken), problems
    except ValidationError:
        raise ConfigurationError(problems) from None


def project_files(path: Path) -> list[Path]:
    """The files of a project, the main one first, then those of `muxly.d` by name."""
    if path.is_dir():
        found = [path / f"muxly{suffix}" for suffix in SUFFIXES if (path / f"muxly{suffix}").is_file()]
        if not found:
            raise ConfigurationError(f"There is no muxly.yaml in {path}.", do=f"run `muxly init {path}` to begin one")
        main = found
    elif path.is_file():
        main = [path]
    else:
        raise ConfigurationError(f"There is no file {path}.", do="correct the path, or run `muxly init` to begin a project")
    if main[0].suffix.lower() not in SUFFIXES:
        raise ConfigurationError(f"{main[0]} is neither YAML, JSON nor TOML.", do=f"give it one of the endings {', '.join(SUFFIXES)}")
    folder = main[0].parent / FOLDER
    more = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")) if folder.is_dir() else []
    return [*main, *more]


def _merged(files: list[Path]) -> tuple[Node, list[Problem]]:
    """All files as one tree. Raises ConfigurationError with the problems of every file that does not parse."""
    roots: list[Node] = []
    unreadable: list[Problem] = []
    for file in files:
        try:
            roots.append(parse_file(file, _shown(file)))
        except ConfigurationError as error:
            unreadable += error.problems
    if unreadable:
        raise ConfigurationError(unreadable)
    problems: list[Problem] = []
    merged = roots[0]
    _expand_pulls(merged)
    for root in roots[1:]:
        _expand_pulls(root)
        _merge(merged, root, root, (), problems)
    return merged, problems


def _merge(into: Node, node: Node, root: Node, path: tuple[str, ...], problems: list[Problem]) -> None:
    for key, child in node.value.items():
        first = into.value.get(key)
        if first is None or (first.value is None and isinstance(child.value, dict)):
            into.value[key] = child
        elif isinstance(first.value, dict) and isinstance(child.value, dict):
            _merge(first, child, root, (*path, key), problems)
        elif not (child.value is None and isinstance(first.value, dict)):
            what = f"is set twice, first at {first.key_at or first.at}"
            problems.append(problem_at(root, (*path, key), what, "keep one of the two", at_key=True))


def _expand_pulls(root: Node) -> None:
    """Write `pulls: [contacts]` as a map, so that another file or a variable can add to it and every pull has its own line."""
    sources = root.value.get("sources")
    for source in sources.value.values() if sources and isinstance(sources.value, dict) else ():
        pulls = source.child("pulls")
        if pulls is not None and isinstance(pulls.value, list) and all(isinstance(item.value, str) for item in pulls.value):
            names = [item.value for item in pulls.value]
            if len(set(names)) == len(names):
                pulls.value = {item.value: Node({}, item.at, item.at, item.variables) for item in pulls.value}


def _entry(loc: tuple[int | str, ...]) -> tuple[str, str]:
    return str(loc[0]) if loc else "", str(loc[1]) if len(loc) > 1 else ""


def _shown(file: Path) -> str:
    """The file as messages name it: from the current folder, where it is below it."""
    try:
        return file.absolute().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(file)
