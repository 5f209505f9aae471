"""A delivery as BigQuery takes it: which table and columns, which key, which rows to write and which to delete."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from muxly_dagster import records
from muxly_dagster.destination import Delivery
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.landing import Mode, RecordColumn, key_and_columns, last_of_each_key, require_apart

GONE = "_muxly_gone"
"""The column of a stage that says which keys are to be deleted."""

_LONGEST_NAME = 300
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_]")
_RESERVED = re.compile(
    r"_TABLE_|_FILE_|_PARTITION|_ROW_TIMESTAMP|__ROOT__|_COLIDENTIFIER|_CHANGE_SEQUENCE_NUMBER|_CHANGE_TYPE|_CHANGE_TIMESTAMP|\d", re.I
)


@dataclass(frozen=True, slots=True)
class Landing:
    """Where a delivery's rows go and how. `rows` are the lake's; `names` maps their columns to the table's, in its order.

    `key` are the table's names of the key columns; empty where every change becomes a row of its own.
    """

    delivery_id: str
    table_id: str
    run_id: str
    upto: int
    table: str
    mode: Mode
    deletes: bool
    evolve: bool
    key: tuple[str, ...]
    names: Mapping[str, str]
    rows: pa.Table

    @property
    def columns(self) -> pa.Schema:
        """The columns to write under the table's names, in the lake's types."""
        return pa.schema([self.rows.schema.field(name).with_name(new) for name, new in self.names.items()])

    def changes(self, after: int) -> pa.Table:
        """What the changes with a seq above `after` come to: the table's columns, and `GONE`. No key stands in it twice."""
        rows = self.rows.filter(pc.greater(self.rows[records.SEQ], after))
        if self.mode != "append":
            if not self.deletes or not self.key:
                rows = rows.filter(pc.not_equal(rows[records.OP], "delete"))
            if self.key:
                rows = last_of_each_key(rows)
        gone = pc.and_(pc.equal(rows[records.OP], "delete"), pa.scalar(self.mode != "append"))
        return pa.table([rows[name] for name in self.names], schema=self.columns).append_column(pa.field(GONE, pa.bool_()), gone)


def lay_out(
    delivery: Delivery,
    *,
    table: str,
    mode: Mode,
    deletes: bool,
    evolve: bool,
    rename: Mapping[str, str],
    record_columns: Sequence[RecordColumn],
) -> Landing:
    """Lay out a delivery. Raises ConfigurationError when two columns would have one name, which BigQuery compares without case."""
    key, columns = key_and_columns(delivery, mode, record_columns)
    names = {name: column_name(rename.get(name, name)) for name in columns}
    if GONE in map(str.lower, names.values()):
        raise ConfigurationError(f"Muxly itself has a column {GONE} on the way", do="take another name in `columns:`")
    require_apart(names, key, delivery, place="BigQuery", fold=str.lower)
    return Landing(
        delivery_id=delivery.id,
        table_id=delivery.table_id,
        run_id=delivery.run_id,
        upto=delivery.upto,
        table=table,
        mode=mode,
        deletes=deletes,
        evolve=evolve,
        key=tuple(names[name] for name in key),
        names=names,
        rows=delivery.rows,
    )


def column_name(name: str) -> str:
    """A name that BigQuery takes for a column: letters, digits and underscores, at most 300, not beginning with what it keeps to itself."""
    made = _NOT_IN_A_NAME.sub("_", name) or "_"
    if _RESERVED.match(made):
        made = f"c{made}" if made[0] == "_" else f"_{made}"
    if len(made) <= _LONGEST_NAME:
        return made
    mark = f"_{xxhash.xxh3_64_intdigest(name.encode()):016x}"
    return made[: _LONGEST_NAME - len(mark)] + mark
