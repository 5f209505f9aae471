"""One asset per pull: the lake table of a source's stream."""

from typing import Any

import dagster as dg

from muxly_dagster.assembly import Pull
from muxly_dagster.defs.checks.own import quarantine_result, quarantine_spec
from muxly_dagster.defs.execution import run_asset
from muxly_dagster.defs.metadata import (
    COLUMN_SCHEMA,
    STORAGE_KIND,
    TABLE_NAME,
    asset_key,
    kind,
    lake_metadata,
    outcome_metadata,
    table_schema,
)
from muxly_dagster.defs.resources import LAKE_IO_MANAGER, MUXLY


def pull_asset(pull: Pull) -> dg.AssetsDefinition:
    """The asset `source/pull`. What is known of its table beforehand is metadata of the definition, the rest of each run."""
    settings, stream = pull.settings, pull.stream
    key = tuple(settings.key) if settings.key is not None else stream.key
    metadata: dict[str, Any] = {TABLE_NAME: pull.name, STORAGE_KIND: "delta", "key": list(key), "sync": stream.sync}
    if stream.schema is not None:
        metadata[COLUMN_SCHEMA] = table_schema(stream.schema, key)

    @dg.asset(
        key=asset_key(pull.name),
        description=settings.description or stream.description or f"{stream.name} of {pull.connector.title}.",
        group_name=settings.group or pull.source,
        owners=settings.owners,
        kinds={kind(pull.connector.id), "delta"},
        tags={"muxly/asset": "pull", "muxly/source": pull.source},
        metadata=metadata,
        check_specs=[quarantine_spec(pull.name, settings.max_quarantined)],
        required_resource_keys={MUXLY},
        io_manager_key=LAKE_IO_MANAGER,
    )
    def materialize(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster knows only the bare class
        runtime, outcome = run_asset(context, pull.name)
        table = runtime.lake.table(pull.name)
        return dg.MaterializeResult(
            metadata=outcome_metadata(outcome, ("read", "changed", "refused")) | (lake_metadata(table) if table else {}),
            check_results=[quarantine_result(outcome, settings.max_quarantined)],
        )

    return materialize
