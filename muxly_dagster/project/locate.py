"""A declaration as a tree that remembers where every key and value stands, so that a problem can name its line."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Segment = str | int
Path = tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file as people count: lines and columns from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(slots=True)
class Node:
    """One value of a declaration. `value` is a map or a list of nodes, or a scalar.

    `at` is where the value begins and `key_at` where its key does (None: it does not come from a file). `variables` are the
    environment variables that its text came from, `filled` what they said, and `missing` says that one of them is not set.
    """

    value: Any
    at: Position | None = None
    key_at: Position | None = None
    variables: tuple[str, ...] = field(default=())
    filled: dict[str, str] = field(default_factory=dict, repr=False)
    missing: bool = False

    @property
    def place(self) -> Position | None:
        """The position to show for a problem: a scalar's own, a map's or list's key."""
        return (self.key_at or self.at) if isinstance(self.value, dict | list) else (self.at or self.key_at)

    def plain(self) -> Any:
        """The value as ordinary maps, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, step: Segment) -> "Node | None":
        """The node under a key or index."""
        if isinstance(self.value, dict):
            return self.value.get(step)
        if isinstance(self.value, list) and isinstance(step, int) and 0 <= step < len(self.value):
            return self.value[step]  # type: ignore[no-any-return]
        return None

    def find(self, path: Sequence[Segment]) -> "Node | None":
        """The node at a path; None where the path leads nowhere."""
        node: Node | None = self
        for step in path:
            node = node.child(step) if node else None
        return node

    def nearest(self, path: Sequence[Segment]) -> "Node":
        """The node at the longest part of the path that there is."""
        node = self
        for step in path:
            below = node.child(step)
            if below is None:
                return node
            node = below
        return node

    def below(self) -> "Iterable[Node]":
        """The nodes right below this one."""
        return self.value.values() if isinstance(self.value, dict) else self.value if isinstance(self.value, list) else ()

    def walk(self) -> "Iterator[Node]":
        """This node and all below it."""
        yield self
        for child in self.below():
            yield from child.walk()


def dotted(path: Sequence[Segment]) -> str:
    """A path as error messages write it: `routes.big_deals.rules.0.when`."""
    return ".".join(str(step) for step in path)
