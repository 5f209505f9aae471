"""Decides which changes go to which destinations: rules are SQL conditions, all asked in one query over a batch."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from muxly_dagster import records, sandbox
from muxly_dagster.errors import ConfigurationError

if TYPE_CHECKING:
    import duckdb

Mask = npt.NDArray[np.bool_]

ELSEWHERE, OTHERWISE = -2, -1
"""In place of a rule's index: the row does not go there, or it goes because no rule holds."""

_ROWS = "_muxly_batch"
# What a column that no record has shown yet may turn out to be; tried in this order until the rule makes sense.
_UNSEEN = ("NULL", "NULL::VARCHAR", "NULL::DOUBLE", "NULL::TIMESTAMPTZ")
_MAX_TYPED_UNSEEN = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """Records for which `when` is true go to the destinations `to`. Without `when`, all do.

    With `sample`, only that share (from 0 to 1) of the keys is meant; a key is always in the sample or never.
    """

    when: str | None
    to: tuple[str, ...]
    name: str = ""
    sample: float | None = None


@dataclass(frozen=True, slots=True)
class Decisions:
    """What the rules said of each row of a batch.

    `matched`, `failed` and `unsampled` hold one mask per rule: where it holds, where its condition could not be answered (a cast that
    fails, say), which counts as not true, and where its condition is true but the record's key is not in the rule's sample. A rule that
    was not asked, because the destination at hand does not depend on it, is false everywhere.
    """

    rules: tuple[Rule, ...]
    otherwise: tuple[str, ...]
    match: Literal["first", "all"]
    matched: tuple[Mask, ...]
    failed: tuple[Mask, ...]
    unsampled: tuple[Mask, ...]
    rows: int

    def rules_of(self, row: int) -> tuple[int, ...]:
        """The rules that decided about this row: one or none under `match: first`; () means `otherwise`."""
        hits = tuple(index for index, mask in enumerate(self.matched) if mask[row])
        return hits[:1] if self.match == "first" else hits

    def destinations_of(self, row: int) -> tuple[str, ...]:
        """Where this row goes, each destination once."""
        rules = self.rules_of(row)
        return tuple(dict.fromkeys(name for index in rules for name in self.rules[index].to)) if rules else self.otherwise

    def answers_of(self, row: int) -> tuple[bool | None, ...]:
        """Each condition's answer about this row; None where it could not be answered."""
        answers = zip(self.matched, self.failed, self.unsampled, strict=True)
        return tuple(None if failed[row] else bool(mask[row] or left_out[row]) for mask, failed, left_out in answers)

    def mask(self, destination: str) -> Mask:
        """The rows that go to this destination."""
        goes: Mask = self.rule_for(destination) != ELSEWHERE
        return goes

    def rule_for(self, destination: str) -> npt.NDArray[np.int64]:
        """For each row the index of the rule that sends it to this destination; OTHERWISE and ELSEWHERE where it is none of them."""
        found = np.full(self.rows, ELSEWHERE, np.int64)
        decided = np.zeros(self.rows, np.bool_)
        for index, (rule, matched) in enumerate(zip(self.rules, self.matched, strict=True)):
            if destination in rule.to:
                sends = matched & ~decided if self.match == "first" else matched
                found[sends & (found == ELSEWHERE)] = index
            decided |= matched
        if destination in self.otherwise:
            found[~decided] = OTHERWISE
        return found

    @property
    def failures(self) -> dict[str, int]:
        """How many rows each rule could not answer about, by the rule's name; rules without failures are left out."""
        counts = {describe(index, rule): int(self.failed[index].sum()) for index, rule in enumerate(self.rules)}
        return {name: count for name, count in counts.items() if count}


def describe(index: int, rule: Rule) -> str:
    """A rule's name, or "rule 2" counted from 1."""
    return rule.name or f"rule {index + 1}"


def rule_names(rules: Sequence[Rule]) -> dict[int, str]:
    """What the rules are called by their index, OTHERWISE too; nothing where the route has no choice to make."""
    if len(rules) == 1 and rules[0].when is None and rules[0].sample is None and not rules[0].name:
        return {}
    return {index: describe(index, rule) for index, rule in enumerate(rules)} | {OTHERWISE: "otherwise"}


def _sampled(rows: pa.Table, index: int, rule: Rule) -> Mask:
    """The rows whose key is in the rule's sample. Rules sample apart from each other: each goes by its own name or number."""
    if rule.sample is None:
        return np.ones(len(rows), np.bool_)
    salt = np.uint64(xxhash.xxh3_64_intdigest(describe(index, rule).encode()))
    mixed = (records.hash_texts(rows[records.KEY]).view(np.uint64) ^ salt) * np.uint64(0x9E3779B97F4A7C15)
    found: Mask = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53 < rule.sample
    return found


class Router:
    """A route's rules. Costs nothing until it is asked: conditions are read at the first question."""

    __slots__ = ("match", "otherwise", "rules")

    def __init__(self, rules: Sequence[Rule], otherwise: tuple[str, ...] = (), match: Literal["first", "all"] = "first") -> None:
        self.rules, self.otherwise, self.match = tuple(rules), otherwise, match

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> "Router":
        """The rules that `written` tells."""
        rules = [Rule(rule["when"], tuple(rule["to"]), rule["name"], rule["sample"]) for rule in written["rules"]]
        return cls(rules, tuple(written["otherwise"]), written["match"])

    @property
    def written(self) -> dict[str, Any]:
        """The rules as JSON: what decided then can be asked again later."""
        rules = [{"name": rule.name, "when": rule.when, "to": list(rule.to), "sample": rule.sample} for rule in self.rules]
        return {"match": self.match, "otherwise": list(self.otherwise), "rules": rules}

    @property
    def destinations(self) -> tuple[str, ...]:
        """Every destination the rules can choose, in the order they are written."""
        return tuple(dict.fromkeys([name for rule in self.rules for name in rule.to] + list(self.otherwise)))

    def problems(self, schema: pa.Schema | None) -> list[tuple[int, str]]:
        """What is wrong with the rules, as (rule index, message).

        With the table's data columns in `schema`, names and types are checked too; None means that they are not known yet.
        """
        found: list[tuple[int, str]] = []
        sound: list[int] = []
        for index, rule in enumerate(self.rules):
            if rule.when is None:
                continue
            try:
                columns = sandbox.read_expression(rule.when).columns
                known = [*records.data_schema(schema).names, *records.ENVELOPE.names] if schema is not None else []
                unknown = [name for name in columns if schema is not None and _resolve(name, known) is None]
                found += [(index, sandbox.unknown_column(name, known)) for name in unknown]
                if not unknown and (schema is not None or len(columns) <= _MAX_TYPED_UNSEEN):
                    sound.append(index)
            except ConfigurationError as error:
                found.append((index, str(error.problems[0])))
        empty = pa.schema([*records.ENVELOPE, *records.data_schema(schema or pa.schema([]))]).empty_table()
        try:
            self._ask(empty, sound)
        except ConfigurationError:
            for index in sound:
                try:
                    self._ask(empty, [index])
                except ConfigurationError as error:
                    found.append((index, str(error.problems[0])))
        return sorted(found)

    def decide(self, rows: pa.Table, destination: str | None = None) -> Decisions:
        """What each rule says of each row (data and `_muxly_` columns). A column that the rows lack is null.

        With a destination, only the rules that it depends on are asked. Raises ConfigurationError for a rule that cannot be
        asked of this table at all, since leaving its records out would lose them in silence.
        """
        nothing = np.zeros(len(rows), np.bool_)
        matched, failed, unsampled = ([nothing] * len(self.rules) for _ in range(3))
        for index, (truth, failure) in self._ask(rows, self._needed(destination)).items():
            sampled = _sampled(rows, index, self.rules[index])
            matched[index], failed[index], unsampled[index] = truth & sampled, failure, truth & ~sampled
        return Decisions(self.rules, self.otherwise, self.match, tuple(matched), tuple(failed), tuple(unsampled), len(rows))

    def route(self, rows: pa.Table, destination: str) -> Mask:
        """The rows (data and `_muxly_` columns) that go to this destination."""
        return self.decide(rows, destination).mask(destination)

    def _needed(self, destination: str | None) -> list[int]:
        every = list(range(len(self.rules)))
        if destination is None or destination in self.otherwise:
            return every
        naming = [index for index in every if destination in self.rules[index].to]
        return naming if self.match == "all" else every[: naming[-1] + 1] if naming else []

    def _ask(self, rows: pa.Table, indexes: Iterable[int]) -> dict[int, tuple[Mask, Mask]]:
        """Truth and failure masks of these rules, from one query."""
        everywhere, nowhere = np.ones(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
        answers: dict[int, tuple[Mask, Mask]] = {}
        conditions: dict[int, sandbox.Expression] = {}
        for index in indexes:
            when = self.rules[index].when
            if when is None:
                answers[index] = (everywhere, nowhere)
            else:
                conditions[index] = sandbox.read_expression(when)
        if not conditions:
            return answers
        import duckdb

        with _registered(rows, conditions.values()) as (connection, missing):
            try:
                answers |= self._query(connection, conditions, dict.fromkeys(missing, "NULL"), len(rows))
            except (duckdb.Error, ConfigurationError):
                # One rule that cannot be asked fails the query for all: ask one by one, to name it or to type its unseen columns.
                for index, condition in conditions.items():
                    answers |= self._ask_alone(connection, index, condition, missing, len(rows))
        return answers

    def _ask_alone(
        self, connection: "duckdb.DuckDBPyConnection", index: int, condition: sandbox.Expression, missing: Sequence[str], rows: int
    ) -> dict[int, tuple[Mask, Mask]]:
        import duckdb

        unseen = [name for name in missing if name in condition.columns]
        first: duckdb.Error | None = None
        for types in itertools.islice(itertools.product(_UNSEEN, repeat=len(unseen)), len(_UNSEEN) ** _MAX_TYPED_UNSEEN):
            try:
                return self._query(connection, {index: condition}, dict(zip(unseen, types, strict=True)), rows)
            except duckdb.Error as error:
                first = first or error
        assert first is not None
        typed = isinstance(first, duckdb.BinderException) and unseen
        hint = f"no record has shown {' and '.join(unseen)} yet: say its type, as in {unseen[0]}::text" if typed else ""
        raise ConfigurationError(f"{describe(index, self.rules[index])} cannot be asked: {sandbox.short(first)}", do=hint) from first

    def _query(
        self, connection: "duckdb.DuckDBPyConnection", conditions: dict[int, sandbox.Expression], unseen: dict[str, str], rows: int
    ) -> dict[int, tuple[Mask, Mask]]:
        nulls = "".join(f", {kind} AS {sandbox.quote(name)}" for name, kind in unseen.items())
        # TRY gives null where the condition fails on a row; COALESCE first makes its own nulls false, so the two stay apart.
        asked = ", ".join(f"TRY(COALESCE({condition.sql}, FALSE)) AS r{index}" for index, condition in conditions.items())
        result = connection.sql(f"SELECT {asked} FROM (SELECT *{nulls} FROM {_ROWS})").to_arrow_table()
        answers: dict[int, tuple[Mask, Mask]] = {}
        for index, column in zip(conditions, result.columns, strict=True):
            if not pa.types.is_boolean(column.type):
                raise ConfigurationError(
                    f"{describe(index, self.rules[index])} is not a condition: it gives {column.type}, not true or false",
                    do="compare it with something, such as amount > 0",
                )
            failure = pc.is_null(column).to_numpy()
            answers[index] = (pc.fill_null(column, False).to_numpy(), failure)
            assert len(failure) == rows
        return answers


@contextmanager
def _registered(rows: pa.Table, conditions: Iterable[sandbox.Expression]) -> Iterator[tuple["duckdb.DuckDBPyConnection", list[str]]]:
    """The sandbox with the columns that the conditions name, and the names the rows lack."""
    wanted: dict[str, str] = {}
    missing: dict[str, None] = {}
    for name in dict.fromkeys(name for condition in conditions for name in condition.columns):
        column = _resolve(name, rows.column_names)
        if column is None:
            if name.casefold() not in {other.casefold() for other in missing}:
                missing[name] = None
        elif wanted.setdefault(name.casefold(), column) != column:
            raise ConfigurationError(
                f"the rules use both {wanted[name.casefold()]} and {column}, which SQL does not tell apart",
                do="rename one of them in a transform",
            )
    # Some column must be there, or the rows could not be counted.
    scanned = rows.select(list(wanted.values())) if wanted else pa.table({"_muxly_none": pa.nulls(len(rows), pa.bool_())})
    connection = sandbox.shared()
    connection.register(_ROWS, scanned)
    try:
        yield connection, list(missing)
    finally:
        connection.unregister(_ROWS)


def _resolve(name: str, columns: Sequence[str]) -> str | None:
    """The column that SQL means by this name: exactly it, or the same in other letter case."""
    if name in columns:
        return name
    folded = name.casefold()
    return next((column for column in columns if column.casefold() == folded), None)
