"""YAML, JSON and TOML text as one kind of tree with positions."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, ClassVar

import yaml

from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.project.locate import Node, Position
from muxly_dagster.project.toml import Places, toml_places

SUFFIXES = (".yaml", ".yml", ".json", ".toml")
_MOST_NODES = 200_000
_DEEPEST = 100


def parse_file(path: Path, shown: str) -> Node:
    """The tree of a file, called `shown` in messages; an empty file is an empty map. Raises ConfigurationError with every problem found."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1
        raise ConfigurationError([Problem("", "is not UTF-8 text", "save the file as UTF-8", shown, line, column)]) from None
    except OSError as error:
        raise ConfigurationError([Problem("", f"cannot be read: {error.strerror}", "", shown, 1, 1)]) from None
    return parse_text(text, path.suffix.lower(), shown)


def parse_text(text: str, suffix: str, shown: str) -> Node:
    """The tree of a text in the format that its file's suffix names."""
    parse = {".json": _json, ".toml": _toml}.get(suffix, _yaml)
    problems: list[Problem] = []
    try:
        root = parse(text, shown, problems)
    except RecursionError:
        raise ConfigurationError([Problem("", "is nested too deeply", "write it flatter", shown, 1, 1)]) from None
    if root is not None and _depth(root) > _DEEPEST:
        problems.append(Problem("", "is nested too deeply", "write it flatter", shown, 1, 1))
    if root is None or root.value is None:
        root = Node({}, Position(shown, 1, 1))
    if not isinstance(root.value, dict) and not problems:
        problems.append(Problem("", "is not a map of names to values", "begin with a line such as `sources:`", shown, 1, 1))
    if problems:
        raise ConfigurationError(problems)
    return root


def _depth(root: Node) -> int:
    depth, level = 0, [root]
    while level:
        depth += 1
        level = [below for node in level for below in node.below()]
    return depth


def scalar(text: str) -> Any:
    """A plain YAML scalar as YAML 1.2's core schema reads it: `no` and dates stay text, leading zeros too."""
    for pattern, convert in _SCALARS:
        if pattern.fullmatch(text):
            return convert(text)
    return text


# ---- YAML -----------------------------------------------------------------------------------------------------------

_SCALARS: tuple[tuple[re.Pattern[str], Any], ...] = (
    (re.compile(r"~|null|Null|NULL|"), lambda text: None),
    (re.compile(r"true|True|TRUE"), lambda text: True),
    (re.compile(r"false|False|FALSE"), lambda text: False),
    (re.compile(r"[-+]?(0|[1-9][0-9]*)"), int),
    (re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+"), lambda text: int(text, 0)),
    (re.compile(r"[-+]?(0|[1-9][0-9]*)?\.[0-9]+([eE][-+]?[0-9]+)?|[-+]?(0|[1-9][0-9]*)\.?([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), lambda text: float(text.replace(".", ""))),
)

_QUOTED = re.compile(r" '(?!<)[^']{2,}'")
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """Composes nodes only; what a plain scalar is, `scalar` decides."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}
    _level = 0

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        # Called on the way into every node: the C composer recurses without a limit, to the end of the stack.
        self._level += 1
        if self._level > _DEEPEST:
            raise RecursionError

    def ascend_resolver(self) -> None:
        self._level -= 1


def _yaml(text: str, shown: str, problems: list[Problem]) -> Node | None:
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        # A password that begins with * or & reads as an alias or anchor, whose name must not be repeated.
        what = f"is not YAML: {re.sub(_QUOTED, '', str(error.problem or error.context))}"
        problems.append(Problem("", what, _yaml_hint(text, line, str(error.problem)), shown, line, column))
        return None
    except yaml.YAMLError as error:
        at = getattr(error, "position", 0)
        line, column = text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1
        problems.append(Problem("", "is not YAML: it holds a character that YAML does not allow", "remove it", shown, line, column))
        return None
    return _from_yaml(root, shown, problems, [0], ()) if root is not None else None


def _yaml_hint(text: str, line: int, problem: str) -> str:
    """What most likely went wrong in YAML that does not parse."""
    lines = text.splitlines()
    here = lines[line - 1] if line <= len(lines) else ""
    indent = here[: len(here) - len(here.lstrip())]
    if "\t" in indent or "'\\t'" in problem:
        return "indent with spaces, not with tabs"
    if "mapping values are not allowed" in problem:
        return "put a value that holds `: ` in quotes, and a space behind the colon of a key"
    if "cannot start any token" in problem or "found undefined alias" in problem or "did not find expected alphabetic" in problem:
        return "put a value that begins with @, `, %, * or & in quotes"
    if "expected ',' or" in problem or "did not find expected ','" in problem or "did not find expected node content" in problem:
        return "close every bracket, and put values that begin with [ or { in quotes"
    if "quoted scalar" in problem or "unexpected end of stream" in problem:
        return "close the quotes"
    if "document" in problem:
        return "keep one document to a file: remove the line `---`"
    return "check the indentation and the quotes of this line and the one above it"


def _from_yaml(node: Any, shown: str, problems: list[Problem], count: list[int], above: tuple[int, ...]) -> Node:
    at = Position(shown, node.start_mark.line + 1, node.start_mark.column + 1)
    count[0] += 1
    if count[0] > _MOST_NODES or len(above) > _DEEPEST or id(node) in above:
        # An alias may stand for what holds it, or for a tree that doubles with every level.
        raise ConfigurationError([Problem("", "is too large or too deep once its aliases are filled in", "use fewer aliases", *_parts(at))])
    if isinstance(node, yaml.ScalarNode):
        return Node(_yaml_scalar(node, at, problems), at)
    above = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        return Node([_from_yaml(item, shown, problems, count, above) for item in node.value], at)
    entries: dict[str, Node] = {}
    inherited: dict[str, Node] = {}
    for key_node, value_node in node.value:
        key_at = Position(shown, key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(Problem("", "has a list or map for a key", "put it in quotes if it is text", *_parts(key_at)))
            continue
        value = _from_yaml(value_node, shown, problems, count, above)
        value.key_at = key_at
        if key_node.value == "<<" and not key_node.style:
            for merged in value.value if isinstance(value.value, list) else [value]:
                if isinstance(merged.value, dict):
                    inherited = merged.value | inherited
                else:
                    problems.append(Problem("<<", "is not a map", "name an anchor of a map, such as `<<: *defaults`", *_parts(key_at)))
        elif (first := entries.get(key_node.value)) is not None:
            problems.append(_twice(key_node.value, first.key_at, key_at))
        else:
            entries[key_node.value] = value
    return Node({**inherited, **entries}, at)


def _yaml_scalar(node: Any, at: Position, problems: list[Problem]) -> Any:
    tag = node.tag.removeprefix("tag:yaml.org,2002:")
    if tag == "str" and not node.style:
        return scalar(node.value) if not _explicit(node) else node.value
    if tag in ("str", "int", "float", "bool", "null", "!"):
        return node.value if tag in ("str", "!") else scalar(node.value)
    problems.append(Problem("", "begins with `!`, which is a tag in YAML and means nothing here", "put the value in quotes", *_parts(at)))
    return None


def _explicit(node: Any) -> bool:
    """Whether a plain scalar was tagged `!!str` by hand: then it spans more than its own text."""
    return bool(node.end_mark.line == node.start_mark.line and node.end_mark.column - node.start_mark.column > len(node.value.rstrip()))


def _twice(key: str, first: Position | None, second: Position) -> Problem:
    return Problem(key, f"is set twice, first at {first}", "keep one of the two", *_parts(second))


def _parts(at: Position) -> tuple[str, int, int]:
    return at.file, at.line, at.column


# ---- JSON -----------------------------------------------------------------------------------------------------------

_SPACE = re.compile(r"[ \t\n\r]*")


def _json(text: str, shown: str, problems: list[Problem]) -> Node | None:
    if not text.strip():
        return None
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        hint = "check commas, quotes and brackets here and on the line above; JSON has no comments and no comma behind the last entry"
        problems.append(Problem("", f"is not JSON: {error.msg[:1].lower()}{error.msg[1:]}", hint, shown, error.lineno, error.colno))
        return None
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    return _JsonReader(text, shown, starts, problems).value(_skip(text, 0))[0]


def _skip(text: str, index: int) -> int:
    match = _SPACE.match(text, index)
    return match.end() if match else index


class _JsonReader:
    """Walks JSON that is known to be valid, for the positions that the standard reader does not tell."""

    def __init__(self, text: str, shown: str, starts: list[int], problems: list[Problem]) -> None:
        self._text, self._shown, self._starts, self._problems = text, shown, starts, problems
        self._decode = json.JSONDecoder().raw_decode

    def position(self, index: int) -> Position:
        low, high = 0, len(self._starts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._starts[middle] <= index else (low, middle)
        return Position(self._shown, low + 1, index - self._starts[low] + 1)

    def value(self, index: int) -> tuple[Node, int]:
        at, opening = self.position(index), self._text[index]
        if opening not in "{[":
            value, index = self._decode(self._text, index)
            return Node(value, at), _skip(self._text, index)
        entries: dict[str, Node] = {}
        items: list[Node] = []
        closing = "}" if opening == "{" else "]"
        index = _skip(self._text, index + 1)
        while self._text[index] != closing:
            if self._text[index] == ",":
                index = _skip(self._text, index + 1)
            key, key_at = "", self.position(index)
            if opening == "{":
                key, index = self._decode(self._text, index)
                index = _skip(self._text, _skip(self._text, index) + 1)
            node, index = self.value(index)
            if opening == "[":
                items.append(node)
            elif key in entries:
                self._problems.append(_twice(key, entries[key].key_at, key_at))
            else:
                node.key_at = key_at
                entries[key] = node
        return Node(entries if opening == "{" else items, at), _skip(self._text, index + 1)


# ---- TOML -----------------------------------------------------------------------------------------------------------


def _toml(text: str, shown: str, problems: list[Problem]) -> Node | None:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at ")
        numbers = re.findall(r"\d+", place) or [str(text.count("\n") + 1), "1"]
        hint = "check quotes and brackets on this line; text stands in quotes, and a table or key may be given once only"
        problems.append(Problem("", f"is not TOML: {message[:1].lower()}{message[1:]}", hint, shown, int(numbers[0]), int(numbers[-1])))
        return None
    return _from_toml(values, (), toml_places(text), shown)


def _from_toml(value: Any, path: tuple[str | int, ...], places: Places, shown: str) -> Node:
    key_at, at = (Position(shown, *place) if place else None for place in places.get(path, (None, None)))
    if isinstance(value, dict):
        return Node({key: _from_toml(item, (*path, key), places, shown) for key, item in value.items()}, at, key_at)
    if isinstance(value, list):
        return Node([_from_toml(item, (*path, index), places, shown) for index, item in enumerate(value)], at, key_at)
    return Node(value if isinstance(value, str | int | float | bool) else value.isoformat(), at, key_at)
