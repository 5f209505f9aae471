"""The bigquery connector keeps every connector's promises: a table pulled by its cursor column."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster.connector import Connector
from muxly_dagster.testing.connectors import ConnectorContract
from muxly_dagster_tests.connectors.lab import EPOCH, Lab, lab


class Orders:
    """A Provider: the table shop.orders with its key, and a time of change that only grows."""

    pull: Mapping[str, Any] = {"stream": "shop.orders", "key": ["id"], "cursor": "updated_at"}

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._rows: dict[int, dict[str, Any]] = {}
        self._changes = 0
        self._drifted = False
        self._store()

    @property
    def secrets(self) -> list[str]:
        return [self._lab.bigquery.key(), *self._lab.bigquery.tokens, self._lab.bigquery.key("stranger")]

    def connector(self, *, wrong: bool = False) -> Connector:
        return self._lab.connector(owner="stranger" if wrong else "muxly")

    def put(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            self._changes += 1
            self._rows[number] = {"id": number, "text": text, "updated_at": EPOCH + dt.timedelta(seconds=self._changes)}
            if self._drifted:
                self._rows[number]["extra"] = "more"
        self._store()

    def delete(self, number: int) -> None:
        del self._rows[number]
        self._store()

    def number(self, row: Mapping[str, Any]) -> int:
        return int(row["id"])

    def text(self, row: Mapping[str, Any]) -> str:
        return str(row["text"])

    def drift(self) -> None:
        self._drifted = True

    def fail_once(self, status: int) -> None:
        self._lab.storage.fail_next.append(status)

    def break_after(self, requests: int) -> None:
        self._lab.storage.breaks_after = requests

    def mend(self) -> None:
        self._lab.storage.breaks_after = None

    def expire(self) -> None:
        self._lab.storage.forget()

    def _store(self) -> None:
        fields = [pa.field("id", pa.int64()), pa.field("text", pa.string()), pa.field("updated_at", pa.timestamp("us", "UTC"))]
        fields += [pa.field("extra", pa.string())] * self._drifted
        self._lab.bigquery.put("shop.orders", pa.Table.from_pylist(list(self._rows.values()), pa.schema(fields)))


class TestBigquery(ConnectorContract):
    """By cursor, with a key: a deleted row leaves no trace that such a pull could see."""

    hears_deletes = False
    refreshes = True

    @pytest.fixture
    def provider(self) -> Iterator[Orders]:
        with lab() as found:
            yield Orders(found)
