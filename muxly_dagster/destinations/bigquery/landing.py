"""A delivery as BigQuery takes it: which table and columns, which key, which rows to write and which to delete."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from muxly_dagster import records
from muxly_dagster.destination import Delivery
from muxly_dagster.errors import ConfigurationError

Mode = Literal["append", "upsert", "mirror", "replace"]
RecordColumn = Literal["seq", "op", "key", "hash", "at", "run", "metadata"]

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
                rows = _last_of_each_key(rows)
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
    data = records.data_schema(delivery.rows.schema).names
    key = delivery.key if mode != "append" else ()
    extra = [f"_muxly_{name}" for name in record_columns]
    if not key and mode != "append" and not _only_appends(delivery.rows):
        key = (records.KEY,)
        extra = [records.KEY, *(name for name in extra if name != records.KEY)]
    names = {name: column_name(rename.get(name, name)) for name in [*data, *extra]}
    if GONE in map(str.lower, names.values()):
        raise ConfigurationError(f"Muxly itself has a column {GONE} on the way", do="take another name in `columns:`")
    twice = [name for name, count in Counter(map(str.lower, names.values())).items() if count > 1]
    if twice:
        both = " and ".join(old for old, new in names.items() if new.lower() == twice[0])
        raise ConfigurationError(
            f"the columns {both} of {delivery.table} would both be named {twice[0]} in BigQuery", do="rename one of them with `columns:`"
        )
    missing = [name for name in key if name not in names]
    if missing:
        raise ConfigurationError(
            f"the key column {missing[0]} of {delivery.table} is not among its columns", do="correct `key:` of the pull or transform"
        )
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


def _only_appends(rows: pa.Table) -> bool:
    return bool(pc.all(pc.equal(rows[records.OP], "append")).as_py())


def _last_of_each_key(rows: pa.Table) -> pa.Table:
    if pc.count_distinct(rows[records.KEY]).as_py() == len(rows):
        return rows
    last = rows.select([records.KEY, records.SEQ]).group_by(records.KEY).aggregate([(records.SEQ, "max")])
    return rows.filter(pc.is_in(rows[records.SEQ], last[f"{records.SEQ}_max"]))
