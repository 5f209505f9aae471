"""Filters from the network: none takes all memory, or breaks the parser."""

import pytest

from muxly_dagster import sandbox
from muxly_dagster.browsing import read
from muxly_dagster.errors import ConfigurationError
from muxly_dagster_tests.api.shop import Shop


@pytest.mark.parametrize(
    "where",
    [
        "list_aggregate(range(3000000000), 'sum') > 0",
        "length(repeat('a', 2000000000)) > 0",
        'len("RANGE" /* so */ (3000000000)) > 0',
        "len((3000000000).generate_series()) > 0",
        "length(lpad('a', 2000000000, 'b')) > 0",
    ],
)
def test_a_filter_makes_no_value_of_any_length(shop: Shop, where: str) -> None:
    table = shop.service.runtime.lake.table("shop.orders")
    assert table is not None
    with pytest.raises(ConfigurationError, match="may not use"):
        read(table, where=where, limit=10)


def test_a_text_that_names_such_a_function_is_a_text(shop: Shop) -> None:
    table = shop.service.runtime.lake.table("shop.orders")
    assert table is not None
    rows, _ = read(table, where="customer <> 'range(1)' and amount between (1) and (200)", limit=10)
    assert rows.num_rows == 3


def test_what_is_nested_too_deeply_for_the_parser_is_told() -> None:
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        sandbox.read_expression("not " * 950 + "true")
