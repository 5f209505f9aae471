"""What all destinations with tables do alike to a delivery: which key and columns it has, and which of its changes count."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from muxly_dagster import records
from muxly_dagster.destination import Delivery
from muxly_dagster.errors import ConfigurationError

Mode = Literal["append", "upsert", "replace", "mirror"]
RecordColumn = Literal["seq", "op", "key", "hash", "at", "run", "metadata"]


def key_and_columns(delivery: Delivery, mode: Mode, record_columns: Sequence[RecordColumn]) -> tuple[tuple[str, ...], list[str]]:
    """The lake's key columns, none where every change becomes a row of its own, and the lake's columns to store, in order.

    What has no key, and is more than events that are only ever added, is told apart by `_muxly_key`.
    """
    data = records.data_schema(delivery.rows.schema).names
    key = delivery.key if mode != "append" else ()
    extra = [f"_muxly_{name}" for name in record_columns]
    if not key and mode != "append" and not pc.all(pc.equal(delivery.rows[records.OP], "append")).as_py():
        key = (records.KEY,)
        extra = [records.KEY, *(name for name in extra if name != records.KEY)]
    return key, [*data, *extra]


def require_apart(names: Mapping[str, str], key: Sequence[str], delivery: Delivery, *, place: str, fold: Callable[[str], str]) -> None:
    """Raise ConfigurationError when two columns would have one name in `place`, or a key column is not among them.

    `names` maps the lake's names to those of the place, `fold` makes alike what the place does not tell apart.
    """
    twice = [name for name, count in Counter(map(fold, names.values())).items() if count > 1]
    if twice:
        both = " and ".join(old for old, new in names.items() if fold(new) == twice[0])
        raise ConfigurationError(
            f"the columns {both} of {delivery.table} would both be named {twice[0]} in {place}", do="rename one of them with `columns:`"
        )
    missing = [name for name in key if name not in names]
    if missing:
        raise ConfigurationError(
            f"the key column {missing[0]} of {delivery.table} is not among its columns", do="correct `key:` of the pull or transform"
        )


def last_of_each_key(rows: pa.Table) -> pa.Table:
    """The newest change of each record."""
    if pc.count_distinct(rows[records.KEY]).as_py() == len(rows):
        return rows
    last = rows.select([records.KEY, records.SEQ]).group_by(records.KEY).aggregate([(records.SEQ, "max")])
    return rows.filter(pc.is_in(rows[records.SEQ], last[f"{records.SEQ}_max"]))
