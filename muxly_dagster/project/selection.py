"""Which assets a selection means: names of assets and of groups of them, with `+` for what comes before and after."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.project.checks import did_you_mean

Names = dict[str, list[str]]
_PATTERN = re.compile(r"(?:(?P<before>\d*)\+)?(?P<name>[^+]+)(?:\+(?P<after>\d*))?")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A name, and how many steps before and after it belong to the selection (None: all the way)."""

    name: str
    before: int | None = 0
    after: int | None = 0


def read_pattern(text: str) -> Pattern:
    """Read `name`, `+name`, `name+` or `2+name+1`; slashes, as in Dagster's asset keys, mean dots."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        return Pattern(text.strip())
    steps = [0 if said is None else int(said) if said else None for said in (match["before"], match["after"])]
    return Pattern(match["name"].strip().replace("/", "."), *steps)


class Selection:
    """All assets with the tables they read (`parents`), groups of assets by name, and jobs with the patterns they stand for."""

    def __init__(
        self, parents: Mapping[str, Sequence[str]], groups: Mapping[str, Sequence[str]], jobs: Mapping[str, Sequence[str]]
    ) -> None:
        self._parents, self._groups, self._jobs = parents, groups, jobs
        self._children: Names = {name: [] for name in parents}
        for name, tables in parents.items():
            for table in tables:
                self._children.setdefault(table, []).append(name)

    def select(self, patterns: Sequence[str]) -> list[str]:
        """The assets that the patterns name, each behind those it reads. Raises ConfigurationError for names that are not there."""
        chosen: set[str] = set()
        unknown: list[str] = []
        for text in patterns:
            pattern = read_pattern(text)
            found = self._named(pattern.name)
            if not found:
                unknown.append(pattern.name)
            chosen |= self._spread(found, self._parents, pattern.before) | self._spread(found, self._children, pattern.after)
        if unknown:
            known = [*self._parents, *self._groups, *self._jobs]
            raise ConfigurationError(
                f"there is nothing called {', '.join(unknown)} to run",
                do=" ".join(dict.fromkeys(did_you_mean(name, known) for name in unknown)),
            )
        return [name for name in self._ordered() if name in chosen]

    def _named(self, name: str) -> set[str]:
        if name == "*":
            return set(self._parents)
        if name in self._parents:
            return {name}
        if name in self._jobs:
            return set(self.select(self._jobs[name]))
        return set(self._groups.get(name, ()))

    def _spread(self, names: set[str], edges: Mapping[str, Sequence[str]], steps: int | None) -> set[str]:
        reached, edge = set(names), set(names)
        while edge and steps != 0:
            edge = {name for at in edge for name in edges.get(at, ()) if name in self._parents} - reached
            reached |= edge
            steps = None if steps is None else steps - 1
        return reached

    def _ordered(self) -> list[str]:
        """Every asset behind its parents, else in the order of declaration."""
        done: dict[str, None] = {}
        for start in self._parents:
            stack = [start]
            while stack:
                name = stack[-1]
                waiting = [
                    parent for parent in self._parents[name] if parent in self._parents and parent not in done and parent not in stack
                ]
                if waiting:
                    stack.append(waiting[0])
                else:
                    done[stack.pop()] = None
        return list(done)
