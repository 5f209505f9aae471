"""One asset per route and destination: the delivery of a table's changes."""

import dagster as dg

from muxly_dagster.assembly import Target
from muxly_dagster.defs.checks.own import delivery_result, delivery_spec, refused_result, refused_spec
from muxly_dagster.defs.execution import run_asset
from muxly_dagster.defs.metadata import TABLE_NAME, asset_key, kind
from muxly_dagster.defs.receipts import receipt_metadata
from muxly_dagster.defs.resources import MUXLY
from muxly_dagster.measures import parse_share

_COUNTS = ("read", "accepted", "refused", "unrouted")


def target_asset(target: Target) -> dg.AssetsDefinition:
    """The asset `route/destination`, downstream of the table whose changes it delivers."""
    spec, destination = target.spec, target.destination
    most_refused = parse_share(destination.max_refused) if destination.max_refused else 1.0

    @dg.asset(
        key=asset_key(target.name),
        deps=[asset_key(target.table)],
        description=spec.description or f"Changes of {target.table} delivered to {target.destination_name} ({destination.title}).",
        group_name=spec.group or "routes",
        owners=spec.owners,
        kinds={kind(destination.type)},
        tags={"muxly/asset": "delivery", "muxly/route": target.route, "muxly/destination": target.destination_name},
        metadata={TABLE_NAME: destination.public_name(target.table), "from": target.table},
        check_specs=[delivery_spec(target.name), refused_spec(target.name, most_refused)],
        required_resource_keys={MUXLY},
    )
    def materialize(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster knows only the bare class
        runtime, outcome = run_asset(context, target.name)
        return dg.MaterializeResult(
            metadata=receipt_metadata(outcome, runtime, _COUNTS),
            check_results=[delivery_result(outcome, runtime.lag(target.name)), refused_result(outcome, most_refused)],
        )

    return materialize
