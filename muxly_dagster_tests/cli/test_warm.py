"""A copy of the warm process says what a new interpreter says: that is what lets all other tests have the copy."""

import pytest

from muxly_dagster_tests.cli.command import Muxly, MuxlyCold


@pytest.mark.parametrize(
    "arguments",
    [
        ["query", "select customer, spent from customers order by spent desc"],
        ["preview", "big_orders", "--json"],
        ["dead-letters", "replay", "big_orders"],
        ["check"],
        ["run", "shop.order"],
        ["run", "--jsn"],
    ],
    ids=" ".join,
)
def test_a_new_interpreter_says_the_same(ran: Muxly, arguments: list[str]) -> None:
    cold = MuxlyCold(ran.folder, ran.environ)(*arguments)

    assert ran(*arguments) == cold
    assert cold.out + cold.err


def test_it_is_a_process_of_its_own(ran: Muxly) -> None:
    before = ran("query", "select 1 as n", "--json")
    assert ran("query", "select 1 as n", "--json", MUXLY_HOME="/proc/self/muxly").code == 2
    assert ran("query", "select 1 as n", "--json") == before
