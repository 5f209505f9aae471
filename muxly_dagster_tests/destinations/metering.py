"""Metrics made of records, and what is shown of them."""

import urllib.request
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from muxly_dagster.destinations.prometheus import Prometheus, exposing
from muxly_dagster.services import MetricStore, OwnMetrics, Services

TARGET = "big_deals.warehouse"
OTHER = "small_deals.warehouse"

ORDERS = {"name": "orders", "type": "counter", "help": "Orders so far.", "labels": ["country"]}
SALES = {"name": "sales", "type": "counter", "unit": "euros", "value": "amount"}
STOCK = {"name": "stock", "type": "gauge", "value": "amount", "labels": {"item": "id"}}


def made(*metrics: dict[str, Any], store: MetricStore | None = None, **fields: Any) -> Prometheus:
    """A destination from fields as they stand in muxly.yaml."""
    return Prometheus(metrics=metrics, **fields).equipped(Services(metrics=store or OwnMetrics()))


def shown(destination: Prometheus, *targets: str, content_type: str = exposing.OPENMETRICS) -> bytes:
    """What a scraper is given."""
    parts = [destination.shown(target, target) for target in targets or (TARGET,)]
    return exposing.text(exposing.merged(parts), content_type)


def values(destination: Prometheus, *targets: str) -> dict[str, float]:
    """All samples but when they began, written `name{label=value}`."""
    found: dict[str, float] = {}
    for family in parse_openmetrics(shown(destination, *targets).decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            if not sample.name.endswith("_created"):
                found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def get(url: str, **headers: str) -> tuple[dict[str, str], bytes]:
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return {name.lower(): value for name, value in answer.headers.items()}, answer.read()
