"""Manifests in the making: checked, and tried live without a project, with credentials from the environment."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import typer
from pydantic import BaseModel, ValidationError

from muxly_dagster import fragment
from muxly_dagster.cli import look, plugged, terminal
from muxly_dagster.cli.declared import print_facts, print_streams
from muxly_dagster.cli.live import pairs, value
from muxly_dagster.connector import Connector, PullSettings, Unreadable
from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.manifest.checking.loading import read_manifest
from muxly_dagster.manifest.connector import load_manifest
from muxly_dagster.previewing import to_rows
from muxly_dagster.project.checks import is_secret, problems_in
from muxly_dagster.project.environment import interpolate
from muxly_dagster.project.locate import Node
from muxly_dagster.project_paths import in_project
from muxly_dagster.sheet import sheet_of

_Model = TypeVar("_Model", bound=BaseModel)


def validate(file: Path, *, json: bool) -> None:
    """Load the manifest. Raises ConfigurationError with every problem, or prints them as JSON."""
    try:
        read_manifest(file)
        found = sheet_of(load_manifest(file))
    except ConfigurationError as error:
        if not json:
            raise
        problems = [{name: getattr(p, name) for name in ("file", "line", "column", "path", "what", "do")} for p in error.problems]
        terminal.print_json({"status": "failed", "problems": problems})
        raise typer.Exit(error.exit_code) from None
    if json:
        terminal.print_json({"status": "ok", "problems": []} | asdict(found))
        return
    terminal.print_text(f"{file}: no mistakes found")
    print_facts({"connector": f"{found.id}: {found.title}", "signs in with": ", ".join(found.auth), "actions": ", ".join(found.actions)})
    print_streams(found.streams)


def try_stream(name: str, stream: str, limit: int, settings: Sequence[str], pull: Sequence[str], *, json: bool) -> None:
    """Print the first records of a stream, and those that could not be read."""
    kind = plugged.connectors().connector_class(name)
    connector = _build(kind, settings, "--set")
    stream = stream or _only_stream(kind)
    found = _build(kind.Pull, [*pull, f"stream={stream}"], "--pull")
    rows, unreadable = _first(connector, found, limit)
    if json:
        told = [{"reason": each.reason, "text": each.text} for each in unreadable]
        terminal.print_json({"stream": stream, "rows": rows, "unreadable": told})
        return
    if rows:
        look.print_rows(rows)
    else:
        terminal.say(f"{stream}: no records")
    for each in unreadable:
        terminal.say(f"could not be read: {each.reason}\n  {each.text}")


def _only_stream(kind: type[Connector]) -> str:
    names = [each.name for each in kind.declaration().streams]
    if len(names) != 1:
        raise ConfigurationError("say which stream to read", do=f"give --stream: {', '.join(names) or 'its name'}")
    return names[0]


def _first(connector: Connector, pull: PullSettings, limit: int) -> tuple[list[dict[str, Any]], list[Unreadable]]:
    rows: list[dict[str, Any]] = []
    unreadable: list[Unreadable] = []
    known = connector.resolve(pull).schema
    # A generator: closing it lets go of the provider's connections.
    with closing(cast("Iterator[Any]", connector.pull(pull, None, known))) as batches:  # type: ignore[type-var]
        for batch in batches:
            rows += to_rows(batch.rows.slice(0, limit - len(rows)))
            unreadable += batch.unreadable[: limit - len(unreadable)]
            if len(rows) >= limit or len(unreadable) >= limit:
                break
    return rows, unreadable


# ---- settings on the command line ------------------------------------------------------------------------------------


def _build(model: type[_Model], said: Sequence[str], option: str) -> _Model:
    """The model with `name=value` settings, dots going inward, `${NAME}` filled in. Raises ConfigurationError with every problem."""
    tree = Node({})
    for path, text in pairs(said).items():
        _put(tree, path.split("."), _node(value(text)))
    problems = interpolate(tree, os.environ)
    for path in map(".".join, _plain_secrets(model, tree)):
        what = "is a secret, which everybody on this machine can see in a command"
        problems.append(Problem(path, what, f"put it into an environment variable, and write {option} {path}='${{NAME}}'"))
    if not problems:
        try:
            return model(**in_project(model, tree.plain(), Path.cwd()))
        except ValidationError as error:
            problems = [_advised(problem, model, option) for problem in problems_in(tree, (), error, model)]
    raise ConfigurationError(problems)


def _advised(problem: Problem, model: type[BaseModel], option: str) -> Problem:
    """A problem with what is missing told as it is said on the command line."""
    if problem.what != "is missing":
        return problem
    info = next((info for name, info in model.model_fields.items() if (info.alias or name) == problem.path), None)
    kinds = [fragment.tag(each) for each in fragment.kinds(info.annotation)] if info else []
    value = f"kind={kinds[0]}" if kinds and kinds[0] else ""
    about = f" ({info.description})" if info and info.description else ""
    return replace(problem, do=f"give {option} {problem.path}{'.' if value else '='}{value}{about}")


def _put(tree: Node, path: Sequence[str], value: Node) -> None:
    for step in path[:-1]:
        if not isinstance(tree.value, dict):
            break
        tree = tree.value.setdefault(step, Node({}))
    if not isinstance(tree.value, dict):
        raise ConfigurationError(f"{'.'.join(path)} goes below a value that is no map", do="set the whole map, or its parts, not both")
    tree.value[path[-1]] = value


def _node(plain: Any) -> Node:
    if isinstance(plain, dict):
        return Node({key: _node(item) for key, item in plain.items()})
    return Node([_node(item) for item in plain]) if isinstance(plain, list) else Node(plain)


def _plain_secrets(model: type[BaseModel], tree: Node) -> Iterator[tuple[str, ...]]:
    """Where a secret stands as it is, rather than as a variable."""
    given: Mapping[str, Node] = tree.value if isinstance(tree.value, dict) else {}
    for said, info in model.model_fields.items():
        name = info.alias or said
        node = given.get(name)
        if node is None:
            continue
        if is_secret(info.annotation) and node.value and not node.variables:
            yield (name,)
        for inner in fragment.kinds(info.annotation):
            yield from ((name, *path) for path in _plain_secrets(inner, node))
