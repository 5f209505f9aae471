"""What assets tell about themselves in Dagster's own words: keys, column schemas, counts."""

import re
from collections.abc import Mapping
from typing import Any

import dagster as dg
import orjson
import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.lake import LakeTable
from muxly_dagster.outcome import Outcome

ROW_COUNT = "dagster/row_count"
COLUMN_SCHEMA = "dagster/column_schema"
TABLE_NAME = "dagster/table_name"
STORAGE_KIND = "dagster/storage_kind"
URI = "dagster/uri"


def asset_key(name: str) -> dg.AssetKey:
    """The asset key of a pull, transform or target: `crm.contacts` is the asset crm/contacts."""
    return dg.AssetKey(name.split("."))


def table_schema(schema: pa.Schema, key: tuple[str, ...]) -> dg.TableSchema:
    """Arrow columns as Dagster shows them. Key columns are not nullable; one that stands alone is unique."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                name=field.name,
                type="json" if records.is_json(field) else str(field.type),
                constraints=dg.TableColumnConstraints(nullable=False, unique=len(key) == 1) if field.name in key else None,
            )
            for field in schema
        ]
    )


def lake_metadata(table: LakeTable) -> dict[str, Any]:
    """A lake table as it stands now."""
    return {
        ROW_COUNT: table.count_current(),
        COLUMN_SCHEMA: table_schema(table.schema, table.key),
        URI: table.url,
    }


def outcome_metadata(outcome: Outcome, counts: tuple[str, ...]) -> dict[str, Any]:
    """What a run did, in numbers Dagster can plot: the counts named, the seconds, and whatever else the outcome tells."""
    told = {name: getattr(outcome, name) for name in counts} | {"seconds": round(outcome.seconds, 3)}
    return told | {name: value for name, value in _plain(outcome.metadata).items() if name not in told}


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON has them: Dagster takes no other kinds in metadata."""
    plain: dict[str, Any] = orjson.loads(records.to_json(dict(metadata)))
    return plain


def kind(name: str) -> str:
    """A connector's id or destination's type as Dagster's kinds are written; its UI has icons for many of them."""
    return re.sub(r"[^a-z0-9_.-]", "_", name.lower())[:63]
