"""Tables selected by pattern: which of a database's tables and views a source's `tables` mean, and with which settings."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from muxly_dagster.connector import Selected
from muxly_dagster.connectors.sql.dialect import Relation
from muxly_dagster.connectors.sql.settings import SqlPull
from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.project.checks import did_you_mean

WITHOUT = "!"
"""Begins a pattern for what is left out."""

NOT_SHARED = ("stream", "table", "query")
"""Settings that say what a pull reads, and so cannot be said for several."""


def select_tables(relations: Sequence[Relation], patterns: Sequence[str], settings: Mapping[str, SqlPull]) -> list[Selected]:
    """What matches a pattern and none that begins with `!`, with the settings of the last key that matches and fits the table.

    Raises ConfigurationError, with `tables.N` as the path, for a name without `*` and `?` that is not there, and where nothing is selected.
    """
    _refuse_unknown(relations, patterns)
    wanted = [pattern for pattern in patterns if not pattern.startswith(WITHOUT)]
    unwanted = [pattern.removeprefix(WITHOUT) for pattern in patterns if pattern.startswith(WITHOUT)]
    chosen = [r for r in relations if any(matches(r, p) for p in wanted) and not any(matches(r, p) for p in unwanted)]
    if not chosen:
        what = "selects nothing: there is no table or view that matches it and that the user may read"
        raise ConfigurationError([Problem("tables", what, did_you_mean(wanted[0], map(_called, relations)))])
    return [_selected(relation, settings) for relation in chosen]


def matches(relation: Relation, pattern: str) -> bool:
    """Whether a pattern means a table, whatever the letter case: `crm.*` by schema and name, `orders` by the name in the default schema."""
    name = f"{relation.schema}.{relation.name}"
    if "." in pattern:
        return _is_like(name, pattern)
    return relation.default and _is_like(relation.name, pattern)


def _is_like(name: str, pattern: str) -> bool:
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, name, re.IGNORECASE | re.DOTALL) is not None


def _refuse_unknown(relations: Sequence[Relation], patterns: Sequence[str]) -> None:
    problems = []
    for index, pattern in enumerate(patterns):
        exact = not pattern.startswith(WITHOUT) and "*" not in pattern and "?" not in pattern
        if exact and not any(matches(relation, pattern) for relation in relations):
            near = did_you_mean(pattern, map(_called, relations))
            problems.append(Problem(f"tables.{index}", f"there is no table {pattern} that the user may read", near))
    if problems:
        raise ConfigurationError(problems)


def _selected(relation: Relation, settings: Mapping[str, SqlPull]) -> Selected:
    name = f"{relation.schema}.{relation.name}"
    fitting = [shared for pattern, shared in settings.items() if matches(relation, pattern) and _fits(relation, shared)]
    said: dict[str, Any] = fitting[-1].model_dump(mode="json", exclude_unset=True) if fitting else {}
    return Selected(name, {"table": name, **said}, _called(relation), (_called(relation),))


def _called(relation: Relation) -> str:
    return relation.name if relation.default else f"{relation.schema}.{relation.name}"


def _fits(relation: Relation, settings: SqlPull) -> bool:
    """Whether the table has all columns that are named, and a key where one is needed."""
    named = {*settings.order, *settings.columns, *(settings.key or ())}
    keyed = relation.keyed if settings.key is None else bool(settings.key)
    return named <= set(relation.columns) and (keyed or not (settings.lookback or settings.deletes))
