"""What becomes of rows whose schema is not the table's: columns that widen, columns that a contract leaves out."""

import pyarrow as pa

from muxly_dagster import records

Rejected = list[tuple[pa.Table, str]]


def text_where_needed(rows: pa.Table, wider: pa.Schema, stored: pa.Schema) -> pa.Schema:
    """The wider schema with text for the columns whose values, in `rows` or in the lake, do not fit the wider type exactly."""
    fields = []
    for f in wider:
        before = stored.field(f.name).type if f.name in stored.names else f.type
        now = rows.schema.field(f.name).type if f.name in rows.column_names else f.type
        inexact = f.type not in (before, now) or (before != now and f.type != pa.string())
        fields.append(pa.field(f.name, pa.string()) if inexact else f)
    return pa.schema(fields)


def told(stored: pa.Schema, wider: pa.Schema) -> list[str]:
    """What changes from one schema to the other, in words."""
    return [
        f"column {f.name} appeared ({f.type})"
        if f.name not in stored.names
        else f"column {f.name} changed from {stored.field(f.name).type} to {f.type}"
        for f in wider
        if f.name not in stored.names or not f.equals(stored.field(f.name), check_metadata=True)
    ]


def discard(rows: pa.Table, stored: pa.Schema) -> tuple[pa.Table, list[str], Rejected]:
    """Only the columns of `stored`; notes on those left out; rows whose values do not fit its types, with the reason."""
    left_out = [name for name in rows.column_names if name not in stored.names]
    notes = [f"column {name} left out by contract" for name in left_out]
    rows = rows.drop_columns(left_out)
    try:
        return records.conform(rows, stored), notes, []
    except pa.ArrowInvalid:
        pass
    fitting, rejected = [], []
    for at in range(len(rows)):
        row = rows.slice(at, 1)
        try:
            fitting.append(records.conform(row, stored))
        except pa.ArrowInvalid as error:
            rejected.append((row, f"does not fit the table's types: {error}"))
    return pa.concat_tables(fitting) if fitting else stored.empty_table(), notes, rejected
