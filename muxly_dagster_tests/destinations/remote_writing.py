"""Metrics that are written to a receiver, and when their records were read."""

import datetime as dt
from typing import Any

from muxly_dagster.destinations.prometheus import Prometheus
from muxly_dagster.http import Retries
from muxly_dagster.services import MetricStore, OwnMetrics, Services

TARGET = "big_deals.warehouse"
ONCE = Retries(attempts=1)
READ_AT = int(dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC).timestamp() * 1000)

SALES = {"name": "sales", "type": "counter", "help": "Sold so far.", "unit": "euros", "value": "amount", "labels": ["country"]}
STOCK = {"name": "stock", "type": "gauge", "value": "amount", "labels": {"item": "id"}}
LEVEL = {"name": "level", "type": "gauge", "value": "amount"}


def made(url: str, *metrics: dict[str, Any], store: MetricStore | None = None, **fields: Any) -> Prometheus:
    """A destination that writes to a receiver."""
    given = {"retries": ONCE, "mode": "remote_write"} | fields
    return Prometheus(metrics=metrics, url=url, **given).equipped(Services(metrics=store or OwnMetrics()))


def on_day(day: int) -> dt.datetime:
    return dt.datetime(2026, 3, day, tzinfo=dt.UTC)
