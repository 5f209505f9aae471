"""The ledger: how far each target has come, what every delivery was answered, and what could not be taken."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from muxly_dagster.errors import BusyError
from muxly_dagster.state import tables

Status = Literal["open", "replayed", "superseded", "resolved", "skipped"]

_MANY = 500
"""How many values one query names at the most: SQLite takes few variables."""


@dataclass(frozen=True, slots=True)
class Offset:
    """The last seq of one lake table that a target is done with. Up to `resync_upto` only the newest change of each key is sent."""

    table_id: str
    seq: int
    resync_upto: int | None = None


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """One receipt: the changes with seq in (after, upto]; read = accepted + refused + unrouted."""

    target: str
    table_id: str
    after: int
    upto: int
    read: int
    accepted: int
    refused: int
    unrouted: int
    seconds: float
    detail: dict[str, Any]
    run_id: str
    at: str = ""
    ruleset: str | None = None

    @property
    def id(self) -> str:
        """The same delivery has the same receipt, however often it is written."""
        return _digest(self.target, self.table_id, self.after, self.upto)


@dataclass(frozen=True, slots=True)
class Beside:
    """What is written together with a receipt: changes beyond it that were taken, marks of what was delivered (see `alike`)."""

    ahead: Collection[int] = ()
    marks: Collection[str] = ()
    replayed: Collection[str] = ()
    """Ids of dead letters that this delivery has settled."""


NOTHING = Beside()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be read (`pull`) or that a destination refused (`delivery`)."""

    kind: Literal["pull", "delivery"]
    name: str
    reason: str
    record: str
    run_id: str
    record_id: str = ""
    table_id: str = ""
    seq: int = 0
    status: Status = "open"
    times: int = 1
    at: str = ""
    edited: str | None = None

    @property
    def id(self) -> str:
        """The same record at the same place is one letter, however often it fails."""
        return _digest(self.kind, self.name, self.record_id or self.record)

    def plain(self) -> dict[str, Any]:
        """As plain values, for commands and the API."""
        fields = ("kind", "name", "record_id", "status", "times", "reason", "at", "run_id", "record", "edited")
        return {"id": self.id} | {field: getattr(self, field) for field in fields}


class Ledger:
    """Offsets, receipts and dead letters. What belongs together is written in one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def offset(self, target: str) -> Offset | None:
        """How far a target has come; None if it never delivered anything."""
        table = tables.offsets
        with self._engine.begin() as connection:
            query = sa.select(table.c.table_id, table.c.seq, table.c.resync_upto).where(table.c.target == target)
            row = connection.execute(query).one_or_none()
        return Offset(row.table_id, row.seq, row.resync_upto) if row else None

    def record(self, receipt: StoredReceipt, letters: Sequence[DeadLetter] = (), beside: Beside = NOTHING) -> None:
        """Write a receipt with its dead letters and what else belongs to it, and move the offset, all or nothing.

        Raises BusyError when somebody else moved the offset since it was read.
        """
        table = tables.offsets
        with self._engine.begin() as connection:
            held = connection.execute(
                sa.select(table.c.table_id, table.c.seq).where(table.c.target == receipt.target).with_for_update()
            ).one_or_none()
            if held and held.table_id == receipt.table_id and held.seq > receipt.after:
                raise BusyError(f"another run of {receipt.target} is going on", do="wait until it has ended")
            values = {"table_id": receipt.table_id, "seq": receipt.upto, "moved_at": tables.now()}
            if held and held.table_id != receipt.table_id:
                values["resync_upto"] = None  # it was another table's
            if held:
                connection.execute(sa.update(table).where(table.c.target == receipt.target).values(**values))
            else:
                connection.execute(sa.insert(table).values(target=receipt.target, **values))
            connection.execute(sa.delete(tables.receipts).where(tables.receipts.c.id == receipt.id))
            row = dataclasses.asdict(receipt) | {"id": receipt.id, "at": tables.now()}
            connection.execute(sa.insert(tables.receipts).values(**row))
            _shelve(connection, letters)
            _write_beside(connection, receipt, beside)

    def shelve(self, letters: Iterable[DeadLetter]) -> None:
        """Keep dead letters; one that is known already counts once more and is open again."""
        with self._engine.begin() as connection:
            _shelve(connection, list(letters))

    def set_back(self, target: str, seq: int) -> None:
        """Move a target's offset back, and leave all else as it is."""
        table = tables.offsets
        with self._engine.begin() as connection:
            connection.execute(sa.update(table).where(table.c.target == target).values(seq=seq, moved_at=tables.now()))

    def last_sent(self, target: str, table_id: str, upto: int) -> int:
        """The last change up to `upto` that a delivery ended with whose records were all accepted; 0 where there is none."""
        table = tables.receipts
        query = sa.select(sa.func.max(table.c.upto)).where(table.c.target == target, table.c.table_id == table_id, table.c.upto <= upto)
        with self._engine.begin() as connection:
            # No seconds: counted without being sent, such as what was taken ahead.
            return connection.scalar(query.where(table.c.accepted > 0, table.c.refused == 0, table.c.seconds > 0)) or 0

    def rewind(self, target: str, offset: Offset | None) -> None:
        """Move a target's offset by hand: None forgets it, so that everything is delivered again."""
        table = tables.offsets
        with self._engine.begin() as connection:
            connection.execute(sa.delete(table).where(table.c.target == target))
            connection.execute(sa.delete(tables.ahead).where(tables.ahead.c.target == target))
            connection.execute(sa.delete(tables.alike).where(tables.alike.c.target == target))
            if offset is not None:
                connection.execute(sa.insert(table).values(target=target, moved_at=tables.now(), **dataclasses.asdict(offset)))

    def keep_ahead(self, target: str, table_id: str, seqs: Iterable[int], marks: Collection[str] = ()) -> None:
        """Remember changes beyond its offset that a target's destination has taken, and their marks (see `alike`)."""
        with self._engine.begin() as connection:
            for seq in seqs:
                tables.ensure(connection, tables.ahead, target=target, table_id=table_id, seq=seq)
            _mark(connection, target, marks)

    def ahead(self, target: str, table_id: str) -> list[int]:
        """The changes beyond its offset that a target's destination has taken all the same, ascending."""
        table = tables.ahead
        query = sa.select(table.c.seq).where(table.c.target == target, table.c.table_id == table_id).order_by(table.c.seq)
        with self._engine.begin() as connection:
            return list(connection.execute(query).scalars())

    def alike(self, target: str, marks: Collection[str], since: str) -> set[str]:
        """Which of these marks were delivered after `since` (RFC 3339 UTC)."""
        table, wanted = tables.alike, list(dict.fromkeys(marks))
        found: set[str] = set()
        with self._engine.begin() as connection:
            for start in range(0, len(wanted), _MANY):
                some = table.c.mark.in_(wanted[start : start + _MANY])
                query = sa.select(table.c.mark).where(table.c.target == target, table.c.delivered_at > since, some)
                found |= set(connection.execute(query).scalars())
        return found

    def forget_alike(self, target: str, before: str) -> None:
        """Drop marks that keep nothing back any more."""
        table = tables.alike
        with self._engine.begin() as connection:
            connection.execute(sa.delete(table).where(table.c.target == target, table.c.delivered_at <= before))

    def keep_rules(self, rules: dict[str, Any]) -> str:
        """Keep the rules that decide, and answer the id under which they can be read again."""
        ruleset = _digest(json.dumps(rules, sort_keys=True))
        with self._engine.begin() as connection:
            tables.ensure(connection, tables.rulesets, id=ruleset, rules=rules)
        return ruleset

    def rules(self, ruleset: str) -> dict[str, Any] | None:
        """The rules as they were kept."""
        with self._engine.begin() as connection:
            found: dict[str, Any] | None = connection.scalar(sa.select(tables.rulesets.c.rules).where(tables.rulesets.c.id == ruleset))
        return found

    def receipts(
        self,
        target: str | None = None,
        *,
        table_id: str | None = None,
        seq: int | None = None,
        limit: int = 100,
        before: tuple[str, str] | None = None,
    ) -> list[StoredReceipt]:
        """Receipts, newest first: of one target, or those that cover one change. `before` is a receipt's `at` and id: those behind it."""
        table = tables.receipts
        query = sa.select(table).order_by(table.c.at.desc(), table.c.id).limit(limit)
        if before is not None:
            query = query.where(_behind(table, *before))
        if target is not None:
            query = query.where(table.c.target == target)
        if table_id is not None:
            query = query.where(table.c.table_id == table_id)
        if seq is not None:
            query = query.where(table.c.after < seq, table.c.upto >= seq)
        with self._engine.begin() as connection:
            rows = connection.execute(query).mappings().all()
        return [StoredReceipt(**{k: v for k, v in row.items() if k != "id"}) for row in rows]

    def targets(self, prefix: str) -> list[str]:
        """The targets whose names begin so that ever had a receipt, sorted."""
        table = tables.receipts
        query = sa.select(table.c.target).where(table.c.target.startswith(prefix, autoescape=True)).distinct().order_by(table.c.target)
        with self._engine.begin() as connection:
            return list(connection.execute(query).scalars())

    def decided(self, target: str, table_id: str) -> list[tuple[int, int, str]]:
        """By which rules stretches of changes were decided, the latest last: (after, upto, ruleset), neighbours of one ruleset as one."""
        table = tables.receipts
        query = sa.select(table.c.after, table.c.upto, table.c.ruleset).where(table.c.target == target, table.c.table_id == table_id)
        spans: list[tuple[int, int, str]] = []
        with self._engine.begin() as connection:
            for after, upto, ruleset in connection.execute(query.order_by(table.c.at, table.c.upto)):
                if spans and spans[-1][1:] == (after, ruleset or ""):
                    spans[-1] = spans[-1][0], upto, ruleset or ""
                else:
                    spans.append((after, upto, ruleset or ""))
        return spans

    def totals(self, target: str, *, table_id: str | None = None) -> dict[str, int]:
        """Sums over all receipts of a target, or those of one lake table: read, accepted, refused, unrouted."""
        table = tables.receipts
        columns = [sa.func.coalesce(sa.func.sum(table.c[name]), 0).label(name) for name in ("read", "accepted", "refused", "unrouted")]
        query = sa.select(*columns).where(table.c.target == target)
        if table_id is not None:
            query = query.where(table.c.table_id == table_id)
        with self._engine.begin() as connection:
            row = connection.execute(query).mappings().one()
        return {name: int(value) for name, value in row.items()}

    def dead_letters(
        self,
        name: str | None = None,
        *,
        status: Status | None = "open",
        record_id: str | None = None,
        limit: int = 1000,
        before: tuple[str, str] | None = None,
    ) -> list[DeadLetter]:
        """Dead letters, newest first. `name` is a pull or target, or the source or route it belongs to; `before` as in `receipts`."""
        table = tables.dead_letters
        query = sa.select(table).order_by(table.c.at.desc(), table.c.id).limit(limit)
        if before is not None:
            query = query.where(_behind(table, *before))
        if name is not None:
            query = query.where(sa.or_(table.c.name == name, table.c.name.startswith(name + ".", autoescape=True)))
        if status is not None:
            query = query.where(table.c.status == status)
        if record_id is not None:
            query = query.where(table.c.record_id == record_id)
        with self._engine.begin() as connection:
            rows = connection.execute(query).mappings().all()
        return [DeadLetter(**{k: v for k, v in row.items() if k != "id"}) for row in rows]

    def dead_letter(self, letter_id: str) -> DeadLetter | None:
        """One dead letter by its id, or by the beginning of it if that is enough to tell."""
        table = tables.dead_letters
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(table).where(table.c.id.startswith(letter_id, autoescape=True)).limit(2)).mappings().all()
        return DeadLetter(**{k: v for k, v in rows[0].items() if k != "id"}) if len(rows) == 1 else None

    def count_open(self, name: str) -> int:
        """How many dead letters of a pull or target are open."""
        table = tables.dead_letters
        query = sa.select(sa.func.count()).select_from(table).where(table.c.name == name, table.c.status == "open")
        with self._engine.begin() as connection:
            return int(connection.scalar(query) or 0)

    def edit(self, letter: DeadLetter, data: str | None) -> None:
        """Keep a record's data (JSON) as a person corrected it; None takes the correction back."""
        table = tables.dead_letters
        with self._engine.begin() as connection:
            connection.execute(sa.update(table).where(table.c.id == letter.id).values(edited=data))

    def letters_of(self, target: str, table_id: str, status: Status, *, after: int = 0) -> dict[int, str]:
        """The ids of a target's dead letters of one lake table and status, by their changes' seqs, from behind `after` on."""
        table = tables.dead_letters
        query = sa.select(table.c.seq, table.c.id).where(table.c.name == target, table.c.table_id == table_id, table.c.status == status)
        with self._engine.begin() as connection:
            rows = connection.execute(query.where(table.c.kind == "delivery", table.c.seq > after)).all()
        return {row.seq: row.id for row in rows}

    def close(self, letters: Iterable[DeadLetter], status: Status) -> None:
        """Say what became of dead letters."""
        table = tables.dead_letters
        with self._engine.begin() as connection:
            for letter in letters:
                connection.execute(sa.update(table).where(table.c.id == letter.id).values(status=status))

    def resolve_unseen(self, pull: str, run_id: str) -> None:
        """After a whole pull: what this run did not fail on any more is no longer a problem."""
        table = tables.dead_letters
        query = sa.update(table).where(table.c.kind == "pull", table.c.name == pull, table.c.status == "open", table.c.run_id != run_id)
        with self._engine.begin() as connection:
            connection.execute(query.values(status="resolved"))


def _behind(table: sa.Table, at: str, row_id: str) -> sa.ColumnElement[bool]:
    """The rows that stand behind this one, the newest first."""
    return sa.or_(table.c.at < at, sa.and_(table.c.at == at, table.c.id > row_id))


def _write_beside(connection: sa.Connection, receipt: StoredReceipt, beside: Beside) -> None:
    ahead = tables.ahead
    connection.execute(
        sa.delete(ahead).where(ahead.c.target == receipt.target, sa.or_(ahead.c.table_id != receipt.table_id, ahead.c.seq <= receipt.upto))
    )
    for seq in beside.ahead:
        tables.ensure(connection, ahead, target=receipt.target, table_id=receipt.table_id, seq=seq)
    _mark(connection, receipt.target, beside.marks)
    for letter_id in beside.replayed:
        connection.execute(sa.update(tables.dead_letters).where(tables.dead_letters.c.id == letter_id).values(status="replayed"))


def _mark(connection: sa.Connection, target: str, marks: Collection[str]) -> None:
    """Remember what was delivered now."""
    if marks:
        now = tables.now()
        tables.put(connection, tables.alike, [{"target": target, "mark": mark, "delivered_at": now} for mark in dict.fromkeys(marks)])


def _shelve(connection: sa.Connection, letters: Sequence[DeadLetter]) -> None:
    table = tables.dead_letters
    for letter in letters:
        known = connection.scalar(sa.select(table.c.times).where(table.c.id == letter.id))
        if known is None:
            connection.execute(sa.insert(table).values(**dataclasses.asdict(letter) | {"id": letter.id, "at": tables.now()}))
        else:
            update = sa.update(table).where(table.c.id == letter.id)
            connection.execute(update.values(times=known + 1, reason=letter.reason, run_id=letter.run_id, status="open", at=tables.now()))


def _digest(*parts: Any) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:16]
