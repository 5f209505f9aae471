"""The table that a delivery ends in: made, given new columns, its columns widened; and stages, which go away by themselves.

Source: tables.insert, tables.patch; "Modify table schemas"; primary keys are not enforced by BigQuery.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from muxly_dagster.destinations.bigquery import types
from muxly_dagster.destinations.bigquery.landing import GONE, Landing
from muxly_dagster.destinations.bigquery.loading import schema_field
from muxly_dagster.destinations.bigquery.offsets import run
from muxly_dagster.destinations.bigquery.service import Service
from muxly_dagster.destinations.bigquery.types import Column
from muxly_dagster.errors import ConfigurationError

MADE_BY = "Muxly keeps this table"
"""Begins the description of the tables that Muxly makes. It widens the columns of such a table; other people's it leaves alone."""

_STAGE_LIVES = dt.timedelta(hours=6)
_KEY_COLUMNS = 16


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is made: its partitions by a time column, and the columns it is clustered by."""

    partition_by: str = ""
    partition_unit: str = "day"
    cluster_by: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Fit:
    """What a table needs before a landing fits. `columns` are the landing's as the table has them, or will have them."""

    table: Any
    """A `google.cloud.bigquery.Table`; None where there is none yet."""

    columns: tuple[Column, ...]
    added: tuple[Column, ...] = ()
    wider: tuple[Column, ...] = ()

    @property
    def said(self) -> tuple[str, ...]:
        """The changes in words."""
        if self.table is None:
            return ("created the table",)
        return (
            *(f"added column {column.name} ({column.sql})" for column in self.added),
            *(f"changed column {column.name} to {column.sql}" for column in self.wider),
        )


def found(service: Service, table: str) -> Any:
    """The table as BigQuery describes it; None where there is none. Raises ConfigurationError for a view."""
    from google.api_core.exceptions import NotFound

    try:
        present = service.client.get_table(service.name(table), **service.asking)
    except NotFound:
        return None
    if present.table_type != "TABLE":
        kind = str(present.table_type).lower().replace("_", " ")
        raise ConfigurationError(f"this is no table but a {kind}", do="set another `table`", where=service.name(table))
    return present


def fit(service: Service, landing: Landing, present: Any) -> Fit:
    """What the table needs; nothing is changed. Raises ConfigurationError, with the statement to run, for what Muxly does not change."""
    where = service.name(landing.table)
    if present is None:
        if not landing.evolve:
            raise ConfigurationError("the table does not exist", do="create it, or remove `evolve: false`", where=where)
        return Fit(None, tuple(types.column(field, key=field.name in landing.key) for field in landing.columns))
    ours = str(present.description or "").startswith(MADE_BY)
    by_name = {column.name.lower(): column for column in map(types.described, present.schema)}
    columns, added, wider = [], [], []
    for field in landing.columns:
        known = by_name.get(field.name.lower())
        if known is None:
            known = types.column(field, key=field.name in landing.key)
            added.append(known)
        elif not types.fits(field, known):
            changed = types.widened(field.with_name(known.name), known)
            if changed is None or not ours:
                raise _does_not_fit(service, landing, types.column(field), known, changed)
            wider.append(changed)
            known = changed
        columns.append(known)
    made = Fit(present, tuple(columns), tuple(added), tuple(wider))
    if made.said and not landing.evolve:
        raise ConfigurationError(
            f"the table needs a change that `evolve: false` forbids: {'; '.join(made.said)}", do="change it by hand", where=where
        )
    _have_values(by_name, landing, where)
    return made


def change(service: Service, landing: Landing, layout: Layout, needed: Fit) -> None:
    """Make the table, or add and widen its columns."""
    if needed.table is None:
        _create(service, landing, layout, needed)
        return
    if needed.added:
        needed.table.schema = [*needed.table.schema, *map(schema_field, needed.added)]
        service.client.update_table(needed.table, ["schema"], **service.asking)
    for column in needed.wider:
        run(service, f"ALTER TABLE {service.quoted(landing.table)} ALTER COLUMN `{column.name}` SET DATA TYPE {column.sql}")


def stage(service: Service, name: str, columns: Sequence[Column]) -> None:
    """Make an empty table for rows on their way, which is gone after some hours even if nobody deletes it."""
    from google.cloud import bigquery

    fields = [*(schema_field(column, staged=True) for column in columns), bigquery.SchemaField(GONE, "BOOLEAN")]
    table = bigquery.Table(service.name(name), fields)
    table.expires = dt.datetime.now(dt.UTC) + _STAGE_LIVES
    table.labels = service.labels
    service.client.create_table(table, exists_ok=True, **service.asking)


def _create(service: Service, landing: Landing, layout: Layout, needed: Fit) -> None:
    from google.cloud import bigquery

    table = bigquery.Table(service.name(landing.table), [schema_field(column) for column in needed.columns])
    table.description = f"{MADE_BY} (delivery {landing.delivery_id}, mode {landing.mode})."
    table.labels = service.labels
    kinds = {column.name: column for column in needed.columns}
    lost = [name for name in (*filter(None, [layout.partition_by]), *layout.cluster_by) if name not in kinds]
    if lost:
        raise ConfigurationError(
            f"there is no column {lost[0]} to partition or cluster by",
            do=f"correct `partition_by` and `cluster_by`: there is {', '.join(kinds)}",
            where=service.name(landing.table),
        )
    if layout.partition_by:
        if kinds[layout.partition_by].kind not in ("DATE", "DATETIME", "TIMESTAMP"):
            raise ConfigurationError(
                f"column {layout.partition_by} is {kinds[layout.partition_by].sql}, and partitions go by a date or time",
                do="name another column in `partition_by`",
                where=service.name(landing.table),
            )
        table.time_partitioning = bigquery.TimePartitioning(type_=layout.partition_unit.upper(), field=layout.partition_by)
    if layout.cluster_by:
        table.clustering_fields = list(layout.cluster_by)
    if landing.key and len(landing.key) <= _KEY_COLUMNS and all(kinds[name].can_be_primary_key for name in landing.key):
        key = bigquery.table.PrimaryKey(columns=list(landing.key))
        table.table_constraints = bigquery.table.TableConstraints(primary_key=key, foreign_keys=None)
    service.client.create_table(table, exists_ok=True, **service.asking)


def _have_values(by_name: dict[str, Column], landing: Landing, where: str) -> None:
    given = {field.name.lower() for field in landing.columns}
    lacking = [c for name, c in by_name.items() if c.mode == "REQUIRED" and name not in given and not c.default]
    if lacking:
        raise ConfigurationError(
            f"column {lacking[0].name} is REQUIRED in the table, and what arrives has no such column",
            do=f"ALTER TABLE `{where}` ALTER COLUMN `{lacking[0].name}` DROP NOT NULL; or rename a column with `columns:`",
            where=where,
        )


def _does_not_fit(service: Service, landing: Landing, wanted: Column, present: Column, changed: Column | None) -> ConfigurationError:
    alter = f"ALTER TABLE {service.quoted(landing.table)}"
    if changed is not None:
        do = f"{alter} ALTER COLUMN `{present.name}` SET DATA TYPE {changed.sql};"
    else:
        do = f"{alter} RENAME COLUMN `{present.name}` TO `{present.name}_before`; and Muxly adds the column anew;"
    return ConfigurationError(
        f"column {present.name} is {present.sql} in the table, but what arrives is {wanted.sql}",
        do=f"{do} or set another `table`, or another name with `columns:`",
        where=service.name(landing.table),
    )
