"""The way of a landing into any database: find the offset, fit the table, write the rows, move the offset."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

import xxhash

from muxly_dagster.destination import Plan
from muxly_dagster.destinations.database.landing import (
    OFFSETS,
    Landing,
    Written,
    gone,
    no_change,
    no_table,
    no_unique_key,
    surplus_rows,
)
from muxly_dagster.destinations.database.session import Session, Table, Widened, does_not_fit
from muxly_dagster.errors import ConfigurationError

_INDEX_NAME = 40


def write(session: Session, landing: Landing, *, counting: bool = False) -> Written:
    """Apply a landing and move the offset; `counting`: say how many rows were there before."""
    session.lock(landing.table)
    position, begun = _offsets(session, landing)
    if position is not None and position >= landing.upto:
        return Written(position=position, repeated=True)
    table = session.table(landing.table)
    if position and table is None:
        raise gone(landing, position)
    _create_offsets(session)
    fit = _fitting(session, landing, table)
    _apply(session, landing, fit)
    session.begin(landing.table)
    if not session.changes_tables_in_transaction:
        # The lock may be a part of the transaction, which has only begun: somebody else may have been faster.
        position, begun = _offsets(session, landing)
        if position is not None and position >= landing.upto:
            return Written(position=position, repeated=True)
    return _write_rows(session, landing, fit.table, position, begun, counting, tuple(fit.said))


def _write_rows(
    session: Session, landing: Landing, table: Table, position: int | None, begun: bool, counting: bool, said: tuple[str, ...]
) -> Written:
    emptied = session.empty(landing) if landing.mode == "replace" and not begun else 0
    changes = landing.changes(position or 0)
    updated = session.existing(landing, changes.upserts.select(list(landing.key))) if counting and landing.key else 0
    if len(changes.upserts):
        session.upsert(landing, table, changes.upserts)
    deleted = session.delete(landing, changes.deletes) if len(changes.deletes) else 0
    _set_offset(session, landing)
    return Written(len(changes.upserts), updated, deleted + (emptied if counting else 0), position, evolved=said)


def rehearse(session: Session, landing: Landing) -> Plan:
    """What `write` would do: done and undone, but for changes of a table that could not be undone, which are only counted and told."""
    if session.changes_tables_in_transaction:
        written = write(session, landing, counting=True)
        session.rollback()
        return _plan(written)
    session.lock(landing.table)
    position, begun = _offsets(session, landing)
    if position is not None and position >= landing.upto:
        return _plan(Written(position=position, repeated=True))
    table = session.table(landing.table)
    if position and table is None:
        raise gone(landing, position)
    fit = _fitting(session, landing, table)
    session.begin(landing.table, rehearsal=True)
    if not fit.said and session.table(OFFSETS) is not None:
        written = _write_rows(session, landing, fit.table, position, begun, True, ())
        session.rollback()
        return _plan(written)
    changes = landing.changes(position or 0)
    emptied = updated = deleted = 0
    if table is not None and landing.mode == "replace" and not begun:
        emptied = int(session.rows(f"SELECT count(*) FROM {session.name(landing.table)}")[0][0])
    elif table is not None and landing.key and all(_known(session, table, name) for name in landing.key):
        updated = session.existing(landing, changes.upserts.select(list(landing.key)))
        deleted = session.existing(landing, changes.deletes)
    session.rollback()
    return _plan(Written(len(changes.upserts), updated, deleted + emptied, position, evolved=tuple(fit.said)))


def _plan(written: Written) -> Plan:
    notes = ("these changes were delivered before",) if written.repeated else written.evolved
    return Plan(written.written - written.updated, written.updated, written.deleted, notes=notes)


# ---- offsets --------------------------------------------------------------------------------------------------------


def position(session: Session, delivery_id: str, table_id: str) -> int | None:
    """The seq stored for a delivery of a lake table."""
    if session.table(OFFSETS) is None:
        return None
    mark, quote = session.mark, session.quote
    statement = f"SELECT {quote('seq')} FROM {session.name(OFFSETS)} WHERE {quote('delivery')} = {mark} AND {quote('table_id')} = {mark}"
    found = session.rows(statement, [delivery_id, table_id])
    return int(found[0][0]) if found else None


def rewind(session: Session, delivery_id: str, table_id: str, seq: int) -> None:
    """Lower the stored seq, and those of its dead letters' replays: what is refused once more may be replayed once more."""
    if session.table(OFFSETS) is None:
        return
    mark, quote = session.mark, session.quote
    where = f"{quote('table_id')} = {mark} AND {quote('seq')} > {mark}"
    for (name,) in session.rows(f"SELECT {quote('delivery')} FROM {session.name(OFFSETS)} WHERE {where}", [table_id, seq]):
        if name == delivery_id or str(name).startswith(f"{delivery_id}/"):
            session.run(
                f"UPDATE {session.name(OFFSETS)} SET {quote('seq')} = {mark} WHERE {quote('delivery')} = {mark} AND {where}",
                [seq, name, table_id, seq],
            )


def _offsets(session: Session, landing: Landing) -> tuple[int | None, bool]:
    """The delivery's position, and whether any delivery of this lake table into this table has begun."""
    if session.table(OFFSETS) is None:
        return None, False
    mark, quote = session.mark, session.quote
    begun = session.rows(
        f"SELECT count(*) FROM {session.name(OFFSETS)} WHERE {quote('target')} = {mark} AND {quote('table_id')} = {mark}",
        [landing.table, landing.table_id],
    )
    return position(session, landing.delivery_id, landing.table_id), bool(begun[0][0])


def _create_offsets(session: Session) -> None:
    if session.table(OFFSETS) is not None:
        return
    session.lock(OFFSETS)
    if session.table(OFFSETS) is None:
        text, number, time = session.offset_types
        columns = {"delivery": text, "table_id": text, "target": text, "seq": number, "run_id": text, "at": time}
        parts = ", ".join(f"{session.quote(name)} {type_} NOT NULL" for name, type_ in columns.items())
        session.create_offsets(parts + f", PRIMARY KEY ({session.quoted(['delivery', 'table_id'])})")


def _set_offset(session: Session, landing: Landing) -> None:
    mark, quote = session.mark, session.quote
    at = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    values = {"target": landing.table, "seq": landing.upto, "run_id": landing.run_id, "at": at}
    where = {"delivery": landing.delivery_id, "table_id": landing.table_id}
    if position(session, landing.delivery_id, landing.table_id) is None:
        every = where | values
        marks = ", ".join([mark] * len(every))
        session.run(f"INSERT INTO {session.name(OFFSETS)} ({session.quoted(list(every))}) VALUES ({marks})", list(every.values()))
        return
    sets = ", ".join(f"{quote(name)} = {mark}" for name in values)
    same = " AND ".join(f"{quote(name)} = {mark}" for name in where)
    session.run(f"UPDATE {session.name(OFFSETS)} SET {sets} WHERE {same}", [*values.values(), *where.values()])


# ---- the table ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Fitting:
    """What a table lacks. `table` is how it was found; a new one has no columns."""

    table: Table
    create: dict[str, str] = field(default_factory=dict)
    add: dict[str, str] = field(default_factory=dict)
    widen: dict[str, Widened] = field(default_factory=dict)
    unique: bool = False
    indexes: list[tuple[str, ...]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def _fitting(session: Session, landing: Landing, table: Table | None) -> _Fitting:
    """What has to be done until the table holds the landing's columns. Raises ConfigurationError where that must not or cannot be."""
    fit = _Fitting(table or Table({}, ours=True))
    wanted = {f.name: landing.types.get(f.name) or session.column_type(f, landing) for f in landing.columns}
    if table is None:
        if not landing.evolve:
            raise no_table(landing)
        fit.create, fit.indexes = wanted, [i for i in landing.indexes if i != landing.key]
        fit.said = ["created the table", *(f"added an index on {', '.join(index)}" for index in fit.indexes)]
        _refuse_unknown(session, landing, fit.table)
        return fit
    for column in landing.columns:
        name = _known(session, table, column.name)
        if name is None:
            fit.add[column.name] = wanted[column.name]
            fit.said.append(f"added column {column.name} ({wanted[column.name]})")
            continue
        present, ours = table.columns[name], table.ours and column.name not in landing.types
        if not session.fits(column, present, ours=ours):
            wider = session.widened(column, present, landing) if ours else None
            if wider is None:
                raise does_not_fit(landing, column, present, session.column_type(column, landing))
            fit.widen[name] = wider
            fit.said.append(f"changed column {column.name} from {present} to {wider.type}")
    if fit.said and not landing.evolve:
        raise no_change(landing, fit.said)
    _refuse_unknown(session, landing, table)
    _find_missing_indexes(session, landing, fit)
    return fit


def _find_missing_indexes(session: Session, landing: Landing, fit: _Fitting) -> None:
    if not landing.key and not landing.indexes:
        return
    present = session.indexes(landing.table)
    folded = [(tuple(_folded(session, name) for name in index.columns), index.unique) for index in present]
    key = [_folded(session, name) for name in landing.key]
    if key and not any(unique and sorted(columns) == sorted(key) for columns, unique in folded):
        if not landing.evolve:
            raise no_unique_key(landing)
        fit.unique = True
        fit.said.append(f"added a unique index on {', '.join(landing.key)}")
    for index in landing.indexes:
        if tuple(_folded(session, name) for name in index) not in [columns for columns, _ in folded] and index != landing.key:
            if not landing.evolve:
                raise no_change(landing, [f"added an index on {', '.join(index)}"])
            fit.indexes.append(index)
            fit.said.append(f"added an index on {', '.join(index)}")


def _apply(session: Session, landing: Landing, fit: _Fitting) -> None:
    if fit.create:
        session.create(landing, fit.create)
    if fit.add:
        session.add_columns(landing, fit.add)
    if fit.widen:
        session.widen(landing, fit.widen)
    if fit.unique and not session.create_index(landing, _index_name(landing, landing.key, "key"), landing.key, unique=True):
        raise surplus_rows(landing)
    for index in fit.indexes:
        session.create_index(landing, _index_name(landing, index, "idx"), index, unique=False)
    if landing.types and (fit.create or fit.add):
        _refuse_unfit_types(session, landing)


def _refuse_unfit_types(session: Session, landing: Landing) -> None:
    """Types that were asked for must hold what the source has."""
    table = session.table(landing.table)
    for column in landing.columns:
        name = _known(session, table, column.name) if table and column.name in landing.types else None
        if table and name and not session.fits(column, table.columns[name], ours=False):
            wanted = session.column_type(column, landing)
            raise ConfigurationError(
                f"`types` makes column {column.name} {table.columns[name]}, but what arrives is {wanted}",
                do="correct `types`, and change the column in the table if it is there",
                where=landing.target,
            )


def _refuse_unknown(session: Session, landing: Landing, table: Table) -> None:
    """An index over a column that is nowhere is a mistake in the configuration."""
    arriving = {_folded(session, name) for name in landing.columns.names}
    for name in (name for index in landing.indexes for name in index):
        if _folded(session, name) not in arriving and _known(session, table, name) is None:
            raise ConfigurationError(f"`indexes` names the column {name}, which is not there", do="correct `indexes`", where=landing.target)


def _known(session: Session, table: Table, name: str) -> str | None:
    """The table's own writing of a column's name."""
    if not session.folds_case:
        return name if name in table.columns else None
    return next((column for column in table.columns if column.lower() == name.lower()), None)


def _folded(session: Session, name: str) -> str:
    return name.lower() if session.folds_case else name


def _index_name(landing: Landing, columns: Sequence[str], ending: str) -> str:
    """A name that is the index's own: in some databases, names of indexes are the whole schema's."""
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in f"{landing.table}_{'_'.join(columns)}_{ending}")
    mark = xxhash.xxh3_64_intdigest("\x1f".join([landing.table, *columns]).encode())
    return f"{plain[:_INDEX_NAME].strip('_')}_{mark:016x}"
