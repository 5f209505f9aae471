"""The bigquery destination beside the stand-in of BigQuery, for the tests of it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster.destinations.bigquery import Bigquery, loading, service
from muxly_dagster_tests.peers import bigquery_writes as writes
from muxly_dagster_tests.peers.bigquery import BigQuery, Cut


@dataclass
class Warehouse:
    """A BigQuery with the empty dataset `mart`."""

    bigquery: BigQuery

    def destination(self, *, owner: str = "muxly", **fields: Any) -> Bigquery:
        """The destination, signed in here."""
        given: dict[str, Any] = {
            "project": "lab",
            "dataset": "mart",
            "auth": {"kind": "service_account", "key": self.bigquery.key(owner)},
            "api_endpoint": self.bigquery.url,
        }
        return Bigquery.model_validate(given | fields)

    def put(self, fields: list[dict[str, Any]], rows: list[dict[str, Any]] | None = None, table: str = "crm_deals") -> None:
        """A table of somebody else's."""
        self.bigquery.put(f"mart.{table}", pa.Table.from_pylist(rows or [], writes.schema(fields)), fields=fields)

    def table(self, table: str = "crm_deals") -> pa.Table:
        """A table as it is now."""
        return self.bigquery.tables[f"mart.{table}"].at(None)

    def rows(self, table: str = "crm_deals") -> list[dict[str, Any]]:
        """Its rows, in an order; none where there is no table."""
        if f"mart.{table}" not in self.bigquery.tables:
            return []
        return sorted(self.table(table).to_pylist(), key=lambda row: (row["id"], row.get("_muxly_seq") or 0))

    def kinds(self, table: str = "crm_deals") -> dict[str, str]:
        """The columns' types."""
        return {each["name"]: each["type"] for each in self.bigquery.tables[f"mart.{table}"].fields}

    def statements(self) -> list[str]:
        """What was sent as SQL."""
        sent = [exchange.sent["configuration"] for exchange in self.bigquery.asked("/jobs") if exchange.method == "POST"]
        return [each["query"]["query"] for each in sent if "query" in each]

    def loads(self) -> list[dict[str, Any]]:
        """The load jobs that were sent, with their ids."""
        sent = [exchange.sent for exchange in self.bigquery.asked("/jobs") if exchange.method == "POST"]
        return [each["configuration"]["load"] | {"id": each["jobReference"]["jobId"]} for each in sent if "load" in each["configuration"]]

    def stages(self) -> list[str]:
        """Tables that were left behind by a delivery."""
        return [name for name in self.bigquery.tables if "_muxly_stage_" in name]


class Cuts:
    """Cuts the line at requests whose path holds `where`, `before` or `after` they are carried out, the first `spared` of them apart.

    What follows gets through after so many `times`; without a number it never does, as from a process that is dead.
    """

    def __init__(self, where: str, moment: str, *, spared: int = 0, times: int | None = None) -> None:
        self._where, self._moment, self._spared, self._left = where, moment, spared, times
        self.cut = 0
        self._lock = threading.Lock()

    def __call__(self, moment: str, method: str, path: str) -> None:
        with self._lock:
            if self.cut and self._left is None:
                raise Cut
            if moment != self._moment or self._where not in path or (self._left is not None and self.cut >= self._left):
                return
            if self._spared:
                self._spared -= 1
                return
            self.cut += 1
            raise Cut


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is tried again: the tests cut lines by the dozen."""
    monkeypatch.setattr(service, "_PATIENCE", 0.01)
    monkeypatch.setattr(loading, "_UPLOAD_RETRIES", 0)


@contextmanager
def warehouse() -> Iterator[Warehouse]:
    """A stand-in for a while."""
    with BigQuery(datasets={"mart"}) as bigquery:
        yield Warehouse(bigquery)


def without_record_columns(row: dict[str, Any]) -> dict[str, Any]:
    """A row's own data."""
    return {name: value for name, value in row.items() if not name.startswith("_muxly_")}
