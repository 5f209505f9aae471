"""Arrow rows on their way to MySQL: as the text that LOAD DATA reads, sent from memory, or as the values of an INSERT."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pymysql
from pymysql.connections import MySQLResult

from muxly_dagster import records
from muxly_dagster.errors import RecordRefused

_PART_ROWS = 10_000
_PACKET = 8 << 20
"""Bytes of one packet of LOAD DATA; the protocol ends at 16 MiB."""

_ESCAPED = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\0", "\\0"))
"""What LOAD DATA would take for its own signs (MySQL manual, LOAD DATA, "Field and Line Handling")."""


if TYPE_CHECKING:
    _Connection = pymysql.connections.Connection[Any]
else:
    _Connection = pymysql.connections.Connection


class Connection(_Connection):
    """A connection whose LOAD DATA LOCAL sends what is `at_hand`.

    The protocol lets the server ask for any file of this machine; here it gets these rows whatever it asks for, and no file is ever read.
    """

    at_hand: Iterator[bytes] = iter(())

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        result = _Result(self)
        result.read()
        self._result = result
        if result.server_status is not None:
            self.server_status = result.server_status
        return result.affected_rows


class _Result(MySQLResult):
    def _read_load_local_packet(self, first_packet: Any) -> None:
        connection: Any = self.connection
        try:
            for part in connection.at_hand:
                for start in range(0, len(part), _PACKET):
                    connection.write_packet(part[start : start + _PACKET])
        finally:
            connection.at_hand = iter(())
            connection.write_packet(b"")
            answer = connection._read_packet()
        self._read_ok_packet(answer)  # type: ignore[attr-defined]


def refuse_not_finite(rows: pa.Table) -> None:
    """MySQL has no number for "not a number" and the infinities."""
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        if column.type == pa.float64() and not pc.all(pc.is_finite(column)).as_py() and pc.any(pc.invert(pc.is_finite(column))).as_py():
            raise RecordRefused(f"column {name} holds a number that is not finite, which MySQL has no place for")


def load_statement(name: str, columns: list[str], rows: pa.Table) -> str:
    """The LOAD DATA for `loaded`; names are quoted. Bytes travel as hexadecimal digits. Backslashes are no escapes in this session."""
    bytes_ = {place for place, field in enumerate(rows.schema) if pa.types.is_binary(field.type)}
    fields = ", ".join(f"@b{place}" if place in bytes_ else column for place, column in enumerate(columns))
    sets = ", ".join(f"{columns[place]} = UNHEX(@b{place})" for place in sorted(bytes_))
    return (
        f"LOAD DATA LOCAL INFILE 'rows' INTO TABLE {name} CHARACTER SET utf8mb4"
        f" FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n' ({fields})" + (f" SET {sets}" if sets else "")
    )


def loaded(rows: pa.Table) -> Iterator[bytes]:
    """The rows as LOAD DATA reads them."""
    for batch in rows.to_batches(max_chunksize=_PART_ROWS):
        fields = [_loaded(column) for column in batch.columns]
        lines = pc.binary_join_element_wise(*fields, "\t", null_handling="replace", null_replacement="\\N")
        lines = pc.binary_join_element_wise(lines, "", "\n")
        yield _joined(lines)


def _loaded(column: pa.Array) -> pa.Array:
    text = _text(column)
    if pa.types.is_string(column.type):
        for sign, escaped in _ESCAPED:
            if pc.any(pc.match_substring(text, sign)).as_py():
                text = pc.replace_substring(text, sign, escaped)
    return text


def inserted(rows: pa.Table, most_bytes: int) -> Iterator[bytes]:
    """The rows as the values of INSERT statements, at most so many bytes each. Raises RecordRefused for a row that is larger."""
    for batch in rows.to_batches(max_chunksize=_PART_ROWS):
        values = pc.binary_join_element_wise(*map(_literal, batch.columns), ",", null_handling="replace", null_replacement="NULL")
        part: list[bytes] = []
        size = 0
        for text in pc.binary_join_element_wise("(", values, ")", "").cast(pa.binary()).to_pylist():
            if len(text) > most_bytes:
                raise RecordRefused(f"a row takes {len(text)} bytes, but the server's max_allowed_packet lets through {most_bytes}")
            if size + len(text) + 1 > most_bytes:
                yield b",".join(part)
                part, size = [], 0
            part.append(text)
            size += len(text) + 1
        if part:
            yield b",".join(part)


def _literal(column: pa.Array) -> pa.Array:
    text = _text(column)
    if pa.types.is_binary(column.type):
        return pc.binary_join_element_wise("X'", text, "'", "")
    if pa.types.is_string(column.type):
        text = pc.replace_substring(text, "'", "''")
    elif not pa.types.is_temporal(column.type):
        return text
    return pc.binary_join_element_wise("'", text, "'", "")


def _text(column: pa.Array) -> pa.Array:
    """The values as MySQL reads them: truth as 1 and 0, times in UTC without saying so, bytes as hexadecimal digits."""
    if column.type == pa.bool_():
        column = column.cast(pa.int8())
    if column.type == records.TIMESTAMP:
        return pc.utf8_rtrim(pc.cast(column, pa.string()), "Z")
    if pa.types.is_binary(column.type):
        return pa.array([None if value is None else value.hex() for value in column.to_pylist()], pa.string())
    return pc.cast(column, pa.string())


def _joined(lines: pa.Array) -> bytes:
    """The texts one after the other."""
    return b"".join(lines.cast(pa.binary()).to_pylist())
