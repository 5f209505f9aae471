"""One asset per transform: a lake table made from lake tables."""

import dagster as dg

from muxly_dagster.assembly import Transform
from muxly_dagster.defs.execution import run_asset
from muxly_dagster.defs.metadata import STORAGE_KIND, TABLE_NAME, asset_key, lake_metadata, outcome_metadata
from muxly_dagster.defs.resources import LAKE_IO_MANAGER, MUXLY


def transform_asset(transform: Transform) -> dg.AssetsDefinition:
    """The asset `transform`, downstream of the tables it reads."""
    name, spec = transform.name, transform.spec

    @dg.asset(
        key=asset_key(name),
        deps=[asset_key(table) for table in transform.inputs],
        description=spec.description or f"Made from {', '.join(transform.inputs)}.",
        group_name=spec.group or "transforms",
        owners=spec.owners,
        kinds={"python" if spec.python else "duckdb", "delta"},
        tags={"muxly/asset": "transform"},
        metadata={TABLE_NAME: name, STORAGE_KIND: "delta", "key": list(transform.key)},
        required_resource_keys={MUXLY},
        io_manager_key=LAKE_IO_MANAGER,
    )
    def materialize(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster knows only the bare class
        runtime, outcome = run_asset(context, name)
        table = runtime.lake.table(name)
        return dg.MaterializeResult(metadata=outcome_metadata(outcome, ("read", "changed")) | (lake_metadata(table) if table else {}))

    return materialize
