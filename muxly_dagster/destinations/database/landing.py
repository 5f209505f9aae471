"""A delivery as a SQL database takes it: which table and columns, which key, which rows to write and which to delete."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from muxly_dagster import records
from muxly_dagster.destination import Delivery
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.landing import Mode, RecordColumn, key_and_columns, last_of_each_key, require_apart

OFFSETS = "_muxly_offsets"
MADE_BY = "Muxly keeps this table"
"""Written into the tables Muxly creates. It may change the types of such a table's columns; other people's it leaves alone."""


@dataclass(frozen=True, slots=True)
class Changes:
    """`upserts` holds the columns to write, `deletes` the key columns only. Neither has a key twice unless every change is a row."""

    upserts: pa.Table
    deletes: pa.Table


@dataclass(frozen=True, slots=True)
class Landing:
    """Where a delivery's rows go and how. `rows` are the lake's; `names` maps their columns to the database's, in its order.

    `key` are the database's names of the key columns; empty where every change becomes a row of its own.
    """

    delivery_id: str
    table_id: str
    run_id: str
    upto: int
    schema: str
    table: str
    mode: Mode
    deletes: bool
    evolve: bool
    key: tuple[str, ...]
    names: Mapping[str, str]
    rows: pa.Table
    types: Mapping[str, str] = field(default_factory=dict)
    """Types that were asked for, by the database's name of the column."""

    indexes: tuple[tuple[str, ...], ...] = ()

    @property
    def target(self) -> str:
        """The table with its schema, for people."""
        return f"{self.schema}.{self.table}" if self.schema else self.table

    @property
    def columns(self) -> pa.Schema:
        """The columns to write under the database's names, in the lake's types."""
        fields = (self.rows.schema.field(name) for name in self.names)
        return pa.schema([f.with_name(self.names[f.name]) for f in fields])

    def changes(self, after: int) -> Changes:
        """What the changes with a seq above `after` come to."""
        rows = self.rows.filter(pc.greater(self.rows[records.SEQ], after))
        gone = pc.equal(rows[records.OP], "delete")
        if self.mode == "append":
            return Changes(self._renamed(rows), self._renamed(rows.slice(0, 0)))
        if not self.key:
            return Changes(self._renamed(rows.filter(pc.invert(gone))), self._renamed(rows.slice(0, 0)))
        if not self.deletes:
            rows = rows.filter(pc.invert(gone))
        rows = last_of_each_key(rows)
        gone = pc.equal(rows[records.OP], "delete")
        return Changes(self._renamed(rows.filter(pc.invert(gone))), self._renamed(rows.filter(gone)).select(list(self.key)))

    def _renamed(self, rows: pa.Table) -> pa.Table:
        return pa.table([rows[name] for name in self.names], schema=self.columns)


@dataclass(frozen=True, slots=True)
class Written:
    """What a transaction did. `position` is the seq the database stood at before it; `evolved` says how the table was changed.

    `updated` says how many of the written rows were there before; it is counted for a rehearsal only.
    """

    written: int = 0
    updated: int = 0
    deleted: int = 0
    position: int | None = None
    repeated: bool = False
    evolved: tuple[str, ...] = ()


def lay_out(
    delivery: Delivery,
    *,
    schema: str,
    table: str,
    mode: Mode,
    deletes: bool,
    evolve: bool,
    rename: Mapping[str, str],
    record_columns: Sequence[RecordColumn],
    types: Mapping[str, str],
    indexes: Sequence[Sequence[str]],
    longest_name: int = 0,
    folds_case: bool = False,
) -> Landing:
    """Lay out a delivery. `longest_name` is the database's limit in bytes (0: none), `folds_case` whether `A` and `a` are one column.

    `rename`, `types` and `indexes` name columns as the source does.

    Raises ConfigurationError when two columns would have one name.
    """
    key, columns = key_and_columns(delivery, mode, record_columns)
    names = {name: shortened(rename.get(name, name), longest_name) for name in columns}
    require_apart(names, key, delivery, place="the database", fold=str.lower if folds_case else str)
    return Landing(
        delivery_id=delivery.id,
        table_id=delivery.table_id,
        run_id=delivery.run_id,
        upto=delivery.upto,
        schema=schema,
        table=shortened(table, longest_name),
        mode=mode,
        deletes=deletes,
        evolve=evolve,
        key=tuple(names[name] for name in key),
        names=names,
        rows=delivery.rows,
        types={names[name]: type_ for name, type_ in types.items() if name in names},
        indexes=tuple(tuple(names.get(name) or shortened(rename.get(name, name), longest_name) for name in index) for index in indexes),
    )


def gone(landing: Landing, position: int) -> ConfigurationError:
    """The error for a table that was there before: made anew, it would hold only what changes from now on."""
    return ConfigurationError(
        f"the table does not exist, though the changes up to {position} were delivered before",
        do=f"put it back, or deliver everything again with `muxly run {landing.delivery_id} --from-start`",
        where=landing.target,
    )


def no_table(landing: Landing) -> ConfigurationError:
    """The error for a table that must not be made."""
    return ConfigurationError("the table does not exist", do="create it, or remove `evolve: false`", where=landing.target)


def no_change(landing: Landing, said: Sequence[str]) -> ConfigurationError:
    """The error for a table that must be left as it is, but does not suit."""
    return ConfigurationError(
        f"the table needs a change that `evolve: false` forbids: {'; '.join(said)}", do="change it by hand", where=landing.target
    )


def no_unique_key(landing: Landing) -> ConfigurationError:
    """The error for a table that lacks a unique index and must be left as it is."""
    columns = ", ".join(landing.key)
    return ConfigurationError(f"the table has no unique index on {columns}", do="create one, or use `mode: append`", where=landing.target)


def surplus_rows(landing: Landing) -> ConfigurationError:
    """The error for a table that cannot be given a unique index."""
    return ConfigurationError(
        f"the table has several rows with the same {', '.join(landing.key)}, which is the key",
        do="remove the surplus rows, set another `table`, or use `mode: append`",
        where=landing.target,
    )


def shortened(name: str, longest: int) -> str:
    """A name the database would cut off, cut off so that it stays unique."""
    if not longest or len(name.encode()) <= longest:
        return name
    mark = f"_{xxhash.xxh3_64_intdigest(name.encode()):016x}"
    return name.encode()[: longest - len(mark)].decode(errors="ignore") + mark
