"""A YAML file as data, with the line and column of everything in it."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import yaml

from muxly_dagster.errors import ConfigurationError, Problem

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML file says, and where: `places` holds line and column (from 1) by path, of keys where there are keys."""

    file: str
    data: Any
    places: dict[Path, tuple[int, int]]

    def problem(self, path: Path, what: str, do: str = "") -> Problem:
        """A mistake at a path, placed at the nearest thing above it that the file has."""
        at = path
        while at and at not in self.places:
            at = at[:-1]
        line, column = self.places.get(at, (1, 1))
        return Problem(".".join(map(str, path)), what, do, self.file, line, column)


def read_yaml(text: str, file: str) -> Document:
    """Read a YAML document. Raises ConfigurationError for a mistake in its form, and for a key that stands twice."""
    loader = yaml.SafeLoader(text)
    places: dict[Path, tuple[int, int]] = {}
    doubles: list[tuple[Path, yaml.Mark, yaml.Mark]] = []
    try:
        root = loader.get_single_node()
        if root is None:
            raise ConfigurationError([Problem("", "the file is empty", "write a manifest into it", file, 1, 1)])
        _walk(root, (), places, doubles, ())
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise ConfigurationError(
            [Problem("", f"this is no YAML: {error.problem}", "check indentation, quotes and brackets", file, line, column)]
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError([Problem("", f"this is no YAML: {str(error).splitlines()[0]}", "", file, 1, 1)]) from None
    finally:
        loader.dispose()
    if doubles:
        problems = []
        for path, first, second in doubles:
            what = f"the key stands twice, first in line {first.line + 1}"
            problems.append(Problem(".".join(map(str, path)), what, "remove one of them", file, second.line + 1, second.column + 1))
        raise ConfigurationError(problems)
    return Document(file, data, places)


def _walk(
    node: yaml.Node,
    path: Path,
    places: dict[Path, tuple[int, int]],
    doubles: list[tuple[Path, yaml.Mark, yaml.Mark]],
    above: tuple[int, ...],
) -> None:
    places.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
    if id(node) in above:
        raise yaml.YAMLError("an alias contains itself")
    above = (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        seen: dict[Hashable, yaml.Mark] = {}
        for key, value in node.value:
            name = key.value if isinstance(key.value, str) else str(key.value)
            here = (*path, name)
            if name in seen:
                doubles.append((here, seen[name], key.start_mark))
            seen[name] = key.start_mark
            places.setdefault(here, (key.start_mark.line + 1, key.start_mark.column + 1))
            _walk(value, here, places, doubles, above)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), places, doubles, above)
