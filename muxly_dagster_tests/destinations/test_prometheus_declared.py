"""What can be declared of metrics, and how what cannot be is told."""

from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from muxly_dagster.destinations.prometheus import Prometheus
from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.metering import ORDERS, made, values


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ({"name": "my-orders"}, "'my-orders' is no metric name: letters, digits and _ only, no digit first; write `my_orders`"),
        ({"name": "2nd"}, "write `_2nd`"),
        ({"name": "shop:orders"}, "has a colon, which Prometheus keeps for recording rules; write `shop_orders`"),
        ({"name": "x" * 300}, "is longer than 200 characters"),
        ({"name": "orders_total", "type": "gauge"}, "orders_total: only a counter's own series end in _total; leave it out"),
        ({"name": "orders_bucket"}, "only a histogram's own series end in _bucket"),
        ({"name": "_total"}, "_total is nothing but an ending"),
        ({"unit": "km/h"}, "'km/h' is no unit"),
        (
            {"labels": ["first name"]},
            "'first name' is no label name: letters, digits and _ only, no digit first; write `{first_name: first name}`",
        ),
        ({"fixed": {"__name__": "x"}}, "begins with __, which Prometheus keeps for itself"),
        ({"labels": ["env"], "fixed": {"env": "prod"}}, "the label env is in `labels` and in `fixed`"),
        ({"type": "histogram", "value": "v", "labels": ["le"]}, "the label le is the histogram's own"),
        ({"type": "summary", "value": "v", "labels": ["quantile"]}, "the label quantile is the summary's own"),
        ({"type": "histogram", "value": "v", "buckets": [5, 1]}, "must be different numbers in ascending order"),
        ({"type": "histogram", "value": "v", "buckets": [float("inf")]}, "needs a bound beside +Inf"),
        ({"buckets": [1]}, "only a histogram has `buckets`"),
        ({"type": "summary"}, "a summary needs `value`, the column to observe"),
        ({"type": "gauge", "counts": "keys"}, "a gauge counts nothing"),
        ({"value": -1}, "a counter's not below 0"),
        ({"value": True}, "must be the name of a column, or a number"),
    ],
)
def test_a_metric_that_cannot_be_is_told_with_the_way_out(metric: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        made({"name": "orders", "type": "counter"} | metric)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"metrics": [ORDERS, ORDERS | {"labels": []}]}, "two metrics are named orders"),
        ({"metrics": [{"name": "w", "type": "histogram", "value": "v"}, {"name": "w_count", "type": "gauge"}]}, "series named w_count"),
        ({"url": "http://x/"}, "`mode: exposition` is scraped and sends nothing"),
        ({"mode": "remote_write"}, "`mode: remote_write` needs `url`"),
        ({"mode": "pushgateway", "url": "ftp://x"}, "must start with https:// or http://"),
        ({"mode": "pushgateway", "url": "http://x", "grouping": {"job": "a"}}, "job is set by `job`"),
        ({"mode": "pushgateway", "url": "http://x", "grouping": {"a b": "a"}}, "'a b' is no label name"),
        ({"mode": "remote_write", "url": "http://x", "metrics": [ORDERS | {"labels": ["instance"]}]}, "the label instance of orders"),
        ({"mode": "remote_write", "url": "http://x", "headers": {"Content-encoding": "gzip"}}, "the protocol itself sets Content-encoding"),
    ],
)
def test_settings_that_do_not_go_together_are_told(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Prometheus(**({"metrics": [ORDERS]} | fields))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind", "unit", "family"),
    [
        ("orders", "counter", "", "orders"),
        ("orders_total", "counter", "", "orders"),
        ("sales_euros_total", "counter", "euros", "sales_euros"),
        ("sales", "counter", "euros", "sales_euros"),
        ("wait", "gauge", "seconds", "wait_seconds"),
        ("wait_seconds", "gauge", "seconds", "wait_seconds"),
    ],
)
def test_units_and_endings_come_by_themselves(name: str, kind: str, unit: str, family: str) -> None:
    assert made({"name": name, "type": kind, "unit": unit}).public_name("crm.deals") == family


def test_labels_are_written_as_a_list_or_with_their_columns() -> None:
    schema = Prometheus.model_json_schema()
    for labels in (["country"], {"market": "country"}):
        jsonschema.validate({"metrics": [ORDERS | {"labels": labels}]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"metrics": [ORDERS | {"labels": 7}]}, schema)
    target = made(ORDERS | {"labels": {"market": "country"}})
    target.deliver(delivery([{"id": 1, "country": "de"}]))
    assert values(target) == {"orders_total{market=de}": 1}
