"""The bigquery connector beside its stand-in, for the tests of it."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from muxly_dagster.connector import Batch, Cursor
from muxly_dagster.connectors.bigquery import Bigquery
from muxly_dagster_tests.peers.bigquery import BigQuery
from muxly_dagster_tests.peers.bigquery_storage import Storage

EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass
class Lab:
    """A BigQuery with its storage."""

    bigquery: BigQuery
    storage: Storage

    def connector(self, *, owner: str = "muxly", **settings: Any) -> Bigquery:
        """The connector, signed in here."""
        given = {
            "auth": {"kind": "service_account", "key": self.bigquery.key(owner)},
            "api_endpoint": self.bigquery.url,
            "storage_endpoint": self.storage.url,
        }
        return Bigquery.model_validate(given | settings)

    def batches(self, after: Cursor | None = None, **pull: Any) -> list[Batch]:
        """Everything that a pull gives."""
        connector = self.connector()
        return list(connector.pull(connector.Pull.model_validate({"stream": "shop.orders", **pull}), after, None))

    def rows(self, after: Cursor | None = None, **pull: Any) -> list[dict[str, Any]]:
        """Its rows, in an order."""
        return rows(self.batches(after, **pull))


@contextmanager
def lab() -> Iterator[Lab]:
    """A stand-in for a while."""
    with BigQuery() as bigquery, Storage(bigquery) as storage:
        yield Lab(bigquery, storage)


def rows(batches: list[Batch]) -> list[dict[str, Any]]:
    """The rows of batches, in an order."""
    return sorted((row for batch in batches for row in batch.rows.to_pylist()), key=str)


def orders(*numbers: int, hour: int = 0, text: str = "first") -> pa.Table:
    """Some orders, changed in an hour of the lab's calendar."""
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "text": pa.array([text] * len(numbers), pa.string()),
            "updated_at": pa.array([EPOCH + dt.timedelta(hours=hour, minutes=n) for n in numbers], pa.timestamp("us", "UTC")),
        }
    )
