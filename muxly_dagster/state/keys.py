"""Write keys: what lets a service post events into a source. A key is shown once; only its SHA-256 is kept."""

import datetime as dt
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from muxly_dagster.state import tables
from muxly_dagster.state.reading import reading

PREFIX = "mwk_"
"""How every key begins, so that whoever finds one in a log or a repository sees what it is."""


@dataclass(frozen=True, slots=True)
class WriteKey:
    """A key as it is kept. `streams` empty: all of the source. `rate` is the most requests, such as `100/second`; empty: no limit."""

    id: str
    hash: str
    source: str
    streams: tuple[str, ...]
    name: str
    rate: str
    created_at: dt.datetime
    revoked_at: dt.datetime | None = None

    def opens(self, source: str, stream: str) -> bool:
        """Whether it may post into this stream."""
        return source == self.source and (not self.streams or stream in self.streams)


class WriteKeys:
    """The keys of all sources. Raises RetryLater where the database cannot be used."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def create(self, source: str, streams: Sequence[str] = (), name: str = "", rate: str = "") -> tuple[WriteKey, str]:
        """A new key, and its text, which nobody can read again."""
        id = secrets.token_hex(6)
        text = f"{PREFIX}{id}_{secrets.token_urlsafe(24)}"
        values = {"id": id, "hash": key_hash(text), "source": source, "streams": list(streams), "name": name, "rate": rate}
        with self._engine.begin() as connection:
            connection.execute(sa.insert(tables.write_keys).values(created_at=tables.now(), **values))
            row = connection.execute(sa.select(tables.write_keys).where(tables.write_keys.c.id == id)).mappings().one()
        return _of(row), text

    def all(self, source: str = "") -> list[WriteKey]:
        """Every key, revoked ones too, the oldest first."""
        query = sa.select(tables.write_keys).order_by(tables.write_keys.c.created_at, tables.write_keys.c.id)
        if source:
            query = query.where(tables.write_keys.c.source == source)
        with reading(self._engine) as connection:
            return [_of(row) for row in connection.execute(query).mappings()]

    def find(self, id: str) -> WriteKey | None:
        """One key by its id."""
        return next((key for key in self.all() if key.id == id), None)

    def revoke(self, id: str) -> WriteKey | None:
        """Let a key open nothing any more; a key that was revoked before stays so since then. None for a key that is not there."""
        table = tables.write_keys
        with self._engine.begin() as connection:
            connection.execute(sa.update(table).where(table.c.id == id, table.c.revoked_at.is_(None)).values(revoked_at=tables.now()))
            row = connection.execute(sa.select(table).where(table.c.id == id)).mappings().one_or_none()
        return _of(row) if row else None


def key_hash(text: str) -> str:
    """What is kept of a key. It is made of 192 random bits, so there is nothing to guess, and no salt is needed."""
    return hashlib.sha256(text.encode()).hexdigest()


def _of(row: sa.RowMapping) -> WriteKey:
    revoked = row["revoked_at"]
    return WriteKey(
        row["id"],
        row["hash"],
        row["source"],
        tuple(row["streams"]),
        row["name"],
        row["rate"],
        dt.datetime.fromisoformat(row["created_at"]),
        dt.datetime.fromisoformat(revoked) if revoked else None,
    )
