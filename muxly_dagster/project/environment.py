"""What the environment adds to a declaration: `${NAME}` inside values, and `MUXLY__...` variables in place of them.

A manifest that stands in a source has expressions of its own, such as `${config.region}`: there, only names in capitals are variables.
"""

import re
from collections.abc import Mapping
from typing import Any

from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.project.checks import did_you_mean, problem_at
from muxly_dagster.project.locate import Node, Segment
from muxly_dagster.project.parse import parse_text

PREFIX = "MUXLY__"
_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<wrong>\$\{[^}]*\}?)")
_IN_A_MANIFEST = re.compile(r"\$\{(?P<name>[A-Z_][A-Z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def interpolate(root: Node, environ: Mapping[str, str]) -> list[Problem]:
    """Fill in `${NAME}` and `${NAME:-default}` in every text value of the tree, in place; `$${` stands for a plain `${`.

    An empty variable counts as unset where there is a default. Answers with a problem for each variable that is missing.
    """
    problems: list[Problem] = []
    _interpolate(root, root, (), environ, problems)
    return problems


def _interpolate(root: Node, node: Node, path: tuple[Segment, ...], environ: Mapping[str, str], problems: list[Problem]) -> None:
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            _interpolate(root, child, (*path, key), environ, problems)
    elif isinstance(node.value, list):
        for index, child in enumerate(node.value):
            _interpolate(root, child, (*path, index), environ, problems)
    elif isinstance(node.value, str) and "${" in node.value and not node.variables:
        used: dict[str, str] = {}
        wrong: list[tuple[str, str]] = []

        def filled(match: re.Match[str]) -> str:
            name, default = match["name"], match["default"]
            if name is None and match.groupdict().get("wrong") is None:
                return "${"
            if name is None:
                wrong.append(("has `${` without the name of a variable", "write ${NAME} or ${NAME:-default}; a plain ${ is written $${"))
                return match.group()
            value = environ.get(name)
            if value is None and default is None:
                near = did_you_mean(name, environ) if name else ""
                hint = f" ({near})" if near.startswith("did you mean") else ""
                wrong.append(
                    (f"needs the environment variable {name}, which is not set{hint}", f"set {name}, or give a default: ${{{name}:-...}}")
                )
                return match.group()
            used[f"${{{name}}}"] = value or ""
            return (value or default) if default is not None else value or ""

        text = (_IN_A_MANIFEST if _is_manifest(path) else _REFERENCE).sub(filled, node.value)
        for what, do in dict.fromkeys(wrong):
            problems.append(problem_at(root, path, what, do))
        node.value, node.variables, node.filled, node.missing = text, tuple(used), used, bool(wrong)


def _is_manifest(path: tuple[Segment, ...]) -> bool:
    """Whether this is a place inside `sources: NAME: connector:`."""
    return len(path) > 3 and path[0] == "sources" and path[2] == "connector"


def override(root: Node, environ: Mapping[str, str]) -> list[Problem]:
    """Put the values of `MUXLY__SECTION__NAME__FIELD` variables into the tree, in place, making the maps that are not there yet.

    A value that is a YAML or JSON map or list is read as one; in place of a number or of true and false it is read as such; anything
    else is text. Answers with a problem for each variable that leads nowhere.
    """
    problems: list[Problem] = []
    for name in sorted(environ):
        if name.upper().startswith(PREFIX):
            segments = name[len(PREFIX) :].split("__")
            if not all(segments):
                problems.append(Problem("", f"the variable {name} names no value", f"write it as {PREFIX}SOURCES__CRM__AUTH__TOKEN"))
            else:
                problems += _place(root, segments, name, environ[name])
    return problems


def _place(root: Node, segments: list[str], name: str, text: str) -> list[Problem]:
    node = root
    path: list[Segment] = []
    while True:
        if isinstance(node.value, list):
            known = [str(index) for index in range(len(node.value))]
            if segments[0] not in known:
                what = f"the variable {name} names entry {segments[0]!r} of a list"
                return [
                    problem_at(
                        root, path, what, f"name one of its entries by number, 0 to {len(known) - 1}" if known else "the list is empty"
                    )
                ]
            key: Segment = int(segments[0])
            rest = segments[1:]
        elif isinstance(node.value, dict):
            key, rest = _key(node.value, segments)
        else:
            return [problem_at(root, path, f"the variable {name} goes below a value that is no map", "shorten the variable's name")]
        path.append(key)
        child = node.child(key)
        if not rest:
            fresh = Node(_read(text, name, child), child.at if child else None, child.key_at if child else None, (name,))
            _mark(fresh, name)
            _put(node, key, fresh)
            return []
        if child is None or child.value is None:
            child = Node({}, child.at if child else None, child.key_at if child else None)
            _put(node, key, child)
        node, segments = child, rest


def _put(node: Node, key: Segment, child: Node) -> None:
    entries: Any = node.value
    entries[key] = child


def _key(entries: dict[str, Node], segments: list[str]) -> tuple[str, list[str]]:
    """The key that the first segments name, the longest match first: a name may hold two underscores itself."""
    known = {_folded(key): key for key in entries}
    for length in range(len(segments), 0, -1):
        key = known.get(_folded("__".join(segments[:length])))
        if key is not None:
            return key, segments[length:]
    return segments[0].lower(), segments[1:]


def _folded(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", key.lower())


def _read(text: str, name: str, instead_of: Node | None) -> Any:
    stripped = text.strip()
    if stripped[:1] in ("{", "["):
        try:
            return parse_text(f"value: {stripped}", ".yaml", name).value["value"].value
        except ConfigurationError:
            return text
    if instead_of is not None and isinstance(instead_of.value, int | float):
        try:
            return parse_text(f"value: {stripped}", ".yaml", name).value["value"].value
        except ConfigurationError:
            return text
    return text


def _mark(node: Node, name: str) -> None:
    """Say of a value from the environment and all below it which variable it came from, so that no message repeats it."""
    for below in node.walk():
        below.variables = (name,)
        below.filled = {} if isinstance(below.value, dict | list) else {name: str(below.value)}
        if below is not node:
            below.at = below.key_at = None
