"""Which events were accepted before: a mark for each id that a sender gave, for as long as ids are remembered."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from muxly_dagster.state.posts import scope

_SIZE = 16
_OWN = 10  # bytes of a mark that are the id's; those before it are the stream's

_AT_ONCE = 20_000

# One statement for all marks: a statement for each would give up the interpreter's lock thousands of times.
_PIECES = f"""with recursive place(at) as (select 1 union all select at + {_SIZE} from place where at + {_SIZE} < ?2)
 select cast(?3 || substr(?1, at, {_OWN}) as blob) as mark from place"""
_SQLITE_ADD = f"insert into inbox_ids (mark, batch) {_PIECES.replace(' as mark', ', ?4')} where true on conflict do nothing"
_SQLITE_FIND = f"select mark from inbox_ids where batch <> ?4 and mark in (select mark from ({_PIECES}))"

_POSTGRES_PIECES = f"%s::bytea || substring(mark for {_OWN})"
_POSTGRES_ADD = (
    f"insert into inbox_ids (mark, batch) select {_POSTGRES_PIECES}, %s from unnest(%s::bytea[]) as given(mark) on conflict do nothing"
)
_POSTGRES_FIND = (
    f"select mark from inbox_ids where mark in (select {_POSTGRES_PIECES} from unnest(%s::bytea[]) as given(mark)) and batch <> %s"
)


class Marks:
    """The marks of all streams, in the transaction of whoever stores their events."""

    def add(
        self, connection: sa.Connection, source: str, stream: str, marks: Sequence[Sequence[bytes]], batch: int
    ) -> Mapping[int, frozenset[int]]:
        """Remember ids, in lists of one stream; answers by list the places of those that were known, or stand twice."""
        given = [mark for part in marks for mark in part]
        unique = set(given)
        twice = len(given) != len(unique)
        unique.discard(b"")
        if not unique:
            return {}
        # In order, neighbours of the index are written together.
        ordered = sorted(unique)
        prefix = scope(source, stream)
        if _add(connection, prefix, ordered, batch) == len(ordered) and not twice:
            return {}
        known = _find(connection, prefix, ordered, batch)
        found: dict[int, frozenset[int]] = {}
        seen: set[bytes] = set()
        for number, part in enumerate(marks):
            gone = []
            for at, mark in enumerate(part):
                if mark and (mark in seen or mark[:_OWN] in known):
                    gone.append(at)
                seen.add(mark)
            if gone:
                found[number] = frozenset(gone)
        return found

    def forget(self, connection: sa.Connection, before: int) -> int:
        """Forget some of the marks of batches before this one; answers how many."""
        key = "mark" if connection.dialect.name == "sqlite" else "ctid"
        batch = "?" if connection.dialect.name == "sqlite" else "%s"
        query = f"delete from inbox_ids where {key} in (select {key} from inbox_ids where batch < {batch} limit {_AT_ONCE})"
        return connection.exec_driver_sql(query, (before,)).rowcount


def _add(connection: sa.Connection, prefix: bytes, marks: Sequence[bytes], batch: int) -> int:
    if connection.dialect.name == "sqlite":
        return connection.exec_driver_sql(_SQLITE_ADD, (b"".join(marks), len(marks) * _SIZE, prefix, batch)).rowcount
    return connection.exec_driver_sql(_POSTGRES_ADD, (prefix, batch, list(marks))).rowcount


def _find(connection: sa.Connection, prefix: bytes, marks: Sequence[bytes], batch: int) -> set[bytes]:
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql(_SQLITE_FIND, (b"".join(marks), len(marks) * _SIZE, prefix, batch))
    else:
        rows = connection.exec_driver_sql(_POSTGRES_FIND, (prefix, list(marks), batch))
    return {bytes(row[0])[len(prefix) :] for row in rows}
