"""A landing written to its table: by a load job straight into it where rows are only added, else by a stage and MERGE in a transaction."""

import uuid
from contextlib import suppress
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from muxly_dagster.destination import Plan
from muxly_dagster.destinations.bigquery import tables, types
from muxly_dagster.destinations.bigquery.landing import GONE, Landing
from muxly_dagster.destinations.bigquery.loading import load
from muxly_dagster.destinations.bigquery.offsets import Latest, Offsets, run
from muxly_dagster.destinations.bigquery.service import Service
from muxly_dagster.destinations.bigquery.tables import Layout
from muxly_dagster.destinations.bigquery.types import Column
from muxly_dagster.errors import ConfigurationError, RetryLater

_ROUNDS = 3
"""So often somebody else may move the offset while a landing is written."""


@dataclass(frozen=True, slots=True)
class Written:
    """What came of a landing. `position` is the seq the dataset stood at before it; `evolved` says how the table was changed."""

    written: int = 0
    deleted: int = 0
    position: int | None = None
    repeated: bool = False
    evolved: tuple[str, ...] = ()


def write(service: Service, landing: Landing, layout: Layout) -> Written:
    """Apply a landing and move the offset. Raises as `Destination.deliver` does, and what Google's libraries raise."""
    offsets = offsets_of(service, landing)
    life = offsets.life()
    tried = ""
    for _ in range(_ROUNDS):
        before = offsets.latest()
        if before.seq is not None and before.seq >= landing.upto:
            return Written(position=before.seq, repeated=True)
        present = tables.found(service, landing.table)
        if present is None and before.seq:
            raise _gone(service, landing, before.seq)
        needed = tables.fit(service, landing, present)
        rows = converted(landing.changes(before.seq or 0), landing, needed.columns, service.name(landing.table))
        tables.change(service, landing, layout, needed)
        job = _job_id(landing, before, life) + (f"-{uuid.uuid4().hex[:8]}" if tried == _job_id(landing, before, life) else "")
        empties = landing.mode == "replace" and not before.begun
        if not landing.key and not empties:
            _append(service, offsets, before, landing, rows, needed.columns, job)
        elif not _merge(service, offsets, before, landing, rows, needed.columns, job, empties=empties):
            tried = _job_id(landing, before, life)
            continue
        deleted = pc.sum(rows[GONE]).as_py() or 0
        return Written(len(rows) - deleted, deleted, before.seq, evolved=needed.said)
    raise RetryLater("another run delivers the same changes at this moment", do="wait for it to end", where=service.name(landing.table))


def plan(service: Service, landing: Landing) -> Plan:
    """What writing a landing would do. The keys alone are staged and compared; the stage is deleted."""
    before = offsets_of(service, landing).latest()
    present = tables.found(service, landing.table)
    if present is None and before.seq:
        raise _gone(service, landing, before.seq)
    needed = tables.fit(service, landing, present)
    rows = converted(landing.changes(before.seq or 0), landing, needed.columns, service.name(landing.table))
    gone = int(pc.sum(rows[GONE]).as_py() or 0)
    empties = landing.mode == "replace" and not before.begun
    notes = needed.said + (("empties the table first",) if empties and present is not None else ())
    if not landing.key or present is None or empties or not len(rows):
        return Plan(inserted=len(rows) - gone, notes=notes)
    by_name = {column.name: column for column in needed.columns}
    keys = [by_name[name] for name in _names(landing, needed.columns)]
    name = _stage_name(uuid.uuid4().hex)
    tables.stage(service, name, keys)
    try:
        load(service, rows.select([*(column.name for column in keys), GONE]), [*keys, Column(GONE, "BOOLEAN")], name, name, staged=True)
        same = " AND ".join(f"t.`{column.name}` = s.`{column.name}`" for column in keys)
        counted = run(
            service,
            f"SELECT s.{GONE}, COUNT(*) FROM {service.quoted(name)} AS s"
            f" WHERE EXISTS (SELECT 1 FROM {service.quoted(landing.table)} AS t WHERE {same}) GROUP BY s.{GONE}",
        )
    finally:
        _drop(service, name)
    there = {bool(row[0]): int(row[1]) for row in counted}
    updated = there.get(False, 0)
    return Plan(inserted=len(rows) - gone - updated, updated=updated, deleted=there.get(True, 0), notes=notes)


def offsets_of(service: Service, landing: Landing) -> Offsets:
    """Where the offset of a landing stands."""
    return Offsets(service, landing.delivery_id, landing.table_id, landing.table, landing.run_id)


def converted(rows: pa.Table, landing: Landing, columns: tuple[Column, ...], where: str) -> pa.Table:
    """The rows under the table's names, in the types that its columns take. Raises RecordRefused where a value does not fit."""
    given = rows.filter(pc.invert(rows[GONE]))
    for field, column in zip(landing.columns, columns, strict=True):
        if column.mode == "REQUIRED":  # a delete has nothing but its key to give
            types.converted(given[field.name], field, column, where)
    made = [
        types.converted(rows[field.name], field, Column(column.name, column.kind, "NULLABLE", column.precision, column.scale), where)
        for field, column in zip(landing.columns, columns, strict=True)
    ]
    return pa.table([*made, rows[GONE]], names=[*(column.name for column in columns), GONE])


def _append(
    service: Service, offsets: Offsets, before: Latest, landing: Landing, rows: pa.Table, columns: tuple[Column, ...], job: str
) -> None:
    if len(rows):
        offsets.promise(before, landing.upto, job)
        load(service, rows.drop_columns([GONE]), columns, landing.table, job)
        before = replace(before, version=before.version + 1)
    offsets.keep(before, landing.upto)


def _merge(
    service: Service,
    offsets: Offsets,
    before: Latest,
    landing: Landing,
    rows: pa.Table,
    columns: tuple[Column, ...],
    job: str,
    *,
    empties: bool,
) -> bool:
    """Write rows and offset in one transaction; False where somebody else has moved the offset, or sent this very job."""
    from google.api_core.exceptions import Conflict

    name = _stage_name(uuid.uuid4().hex)
    statements = [f"DELETE FROM {service.quoted(landing.table)} WHERE {offsets.unmoved}"] if empties else []
    try:
        if len(rows):
            tables.stage(service, name, columns)
            load(service, rows, [*columns, Column(GONE, "BOOLEAN")], name, name, staged=True)
            statements.append(_statement(service, offsets, landing, columns, name))
        script = [
            "BEGIN TRANSACTION",
            *statements,
            offsets.move,
            "COMMIT TRANSACTION",
            f"SELECT COUNT(*) FROM {offsets.table}"
            " WHERE delivery = @delivery AND table_id = @table_id AND version = @version + 1 AND seq = @seq",
        ]
        moved = run(service, ";\n".join(script), offsets.parameters(version=before.version, seq=landing.upto), job_id=job)
        return bool(moved[0][0])
    except Conflict:
        # The job of a run that was killed: it ends as it ends, and the offset tells.
        with suppress(Exception):
            service.client.get_job(job, location=service.location, **service.asking).result(retry=service.retry, timeout=600.0)
        return False
    finally:
        _drop(service, name)


def _statement(service: Service, offsets: Offsets, landing: Landing, columns: tuple[Column, ...], stage: str) -> str:
    """MERGE by the key; without one, every row of the stage is added."""
    target, source = service.quoted(landing.table), f"(SELECT * FROM {service.quoted(stage)} WHERE {offsets.unmoved})"
    names = ", ".join(f"`{column.name}`" for column in columns)
    values = ", ".join(_value(column) for column in columns)
    if not landing.key:
        return f"INSERT INTO {target} ({names}) SELECT {values} FROM {source} AS s"
    keys = _names(landing, columns)
    same = " AND ".join(f"t.`{name}` = s.`{name}`" for name in keys)
    sets = ", ".join(f"`{column.name}` = {_value(column)}" for column in columns if column.name not in keys)
    return (
        f"MERGE {target} AS t USING {source} AS s ON {same}"
        f" WHEN MATCHED AND s.{GONE} THEN DELETE"
        + (f" WHEN MATCHED THEN UPDATE SET {sets}" if sets else "")
        + f" WHEN NOT MATCHED AND NOT s.{GONE} THEN INSERT ({names}) VALUES ({values})"
    )


def _value(column: Column) -> str:
    return f"PARSE_JSON(s.`{column.name}`, wide_number_mode => 'round')" if column.kind == "JSON" else f"s.`{column.name}`"


def _names(landing: Landing, columns: tuple[Column, ...]) -> list[str]:
    """The key as the table writes it: BigQuery's names are one whatever their case."""
    key = {name.lower() for name in landing.key}
    return [column.name for column in columns if column.name.lower() in key]


def _job_id(landing: Landing, before: Latest, life: str) -> str:
    """The same for the same rows at the same version of the offset, whoever tries, however often."""
    owner = xxhash.xxh3_64_intdigest("\n".join((landing.delivery_id, landing.table_id, landing.table, life)).encode())
    return f"muxly-{owner:016x}-{before.seq or 0}-{landing.upto}-{before.version}"


def _stage_name(mark: str) -> str:
    return f"_muxly_stage_{mark}"


def _drop(service: Service, table: str) -> None:
    # What cannot be deleted now expires by itself, and must not hide why the delivery failed.
    with suppress(Exception):
        service.client.delete_table(service.name(table), not_found_ok=True, **service.asking)


def _gone(service: Service, landing: Landing, position: int) -> ConfigurationError:
    """A table that was there before: made anew, it would hold only what changes from now on."""
    return ConfigurationError(
        f"the table does not exist, though the changes up to {position} were delivered before",
        do=f"put it back, or deliver everything again with `muxly run {landing.delivery_id} --from-start`",
        where=service.name(landing.table),
    )
