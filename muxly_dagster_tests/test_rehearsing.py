"""Today's rules asked about the past: what would go elsewhere than it went, whatever rules decided at the time."""

import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from muxly_dagster.assembly import Assembly, Target
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.lake import Lake
from muxly_dagster.project.models import Project
from muxly_dagster.rehearsing import Difference, compare_rules
from muxly_dagster.routing import Router, Rule
from muxly_dagster.state import tables
from muxly_dagster.testing import MemoryDestination
from muxly_dagster_tests.road.lane import Road

LONG_AGO = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


def big(limit: int, name: str = "big") -> Router:
    return Router([Rule(f"amount > {limit}", ("memory",), name)], ("archive",))


class Past(Road):
    """A road with one route, `out`, whose rules change from time to time."""

    def assembly(self, router: Router) -> Assembly:
        names = router.destinations
        targets = {f"out.{name}": self.target(router, name, MemoryDestination()) for name in names}
        return Assembly(Project(), {}, {}, {}, {}, targets, {})

    def deals(self, *amounts: int, to: Router | None = None) -> None:
        """Deals by their amounts, delivered by these rules, if any."""
        self.store(*({"id": str(amount), "amount": amount} for amount in amounts))
        for target in self.assembly(to).targets.values() if to is not None else ():
            self.deliver(target)

    def compared(self, router: Router, since: dt.datetime = LONG_AGO) -> dict[str, Difference]:
        return {each.destination: each for each in compare_rules(self.lake, self.state, self.assembly(router), "out", since)}


def shown(difference: Difference) -> tuple[int, int, int, int, int]:
    """Before, now, added, removed, undecided."""
    return difference.before, difference.now, difference.added, difference.removed, difference.undecided


def examples(difference: Difference) -> list[tuple[str, str, str]]:
    return [(each["key"], each["was"], each["now"]) for each in difference.examples]


@pytest.fixture
def past(tmp_path: Path) -> Iterator[Past]:
    past = Past(tmp_path)
    yield past
    past.state.close()


def test_the_same_rules_change_nothing(past: Past) -> None:
    past.deals(1, 50, 500, to=big(100))
    found = past.compared(big(100))
    assert {name: shown(each) for name, each in found.items()} == {"memory": (1, 1, 0, 0, 0), "archive": (2, 2, 0, 0, 0)}
    assert found["memory"].examples == []


def test_what_would_be_added_and_removed_is_counted_with_examples(past: Past) -> None:
    past.deals(1, 50, 500, to=big(100))
    found = past.compared(big(10, "bigger than 10"))
    assert {name: shown(each) for name, each in found.items()} == {"memory": (1, 2, 1, 0, 0), "archive": (2, 1, 0, 1, 0)}
    assert examples(found["memory"]) == [("50", "", "bigger than 10")]
    assert examples(found["archive"]) == [("50", "otherwise", "")]
    [example] = found["memory"].examples
    assert example["id"].startswith("crm.deals:") and example["id"].endswith(":2")
    assert example["data"] == {"id": "50", "amount": 50}


def test_there_are_a_few_examples_and_all_are_counted(past: Past) -> None:
    past.deals(*range(1, 50), to=big(100))
    found = past.compared(big(0))["memory"]
    assert (found.added, len(found.examples)) == (49, 5)


def test_nothing_is_sent_or_remembered(past: Past) -> None:
    past.deals(1, 500, to=big(100))

    def remembered() -> list[Any]:
        with past.state.engine.connect() as connection:
            return [connection.execute(sa.select(table)).all() for table in tables.metadata.sorted_tables]

    before = remembered()
    past.compared(big(0))
    assert remembered() == before


def test_changes_that_were_not_delivered_yet_are_undecided(past: Past) -> None:
    past.deals(1, 500, to=big(100))
    past.deals(2, 600, 700)
    found = past.compared(big(650))
    assert {name: shown(each) for name, each in found.items()} == {"memory": (1, 0, 0, 1, 1), "archive": (1, 2, 1, 0, 2)}


def test_each_change_is_compared_with_the_rules_of_its_own_time(past: Past) -> None:
    past.deals(10, 20, 30, to=big(100, "first"))
    past.deals(11, 21, 31, to=big(20, "second"))
    past.deals(12, 22, 32, to=big(25, "third"))
    found = past.compared(big(15, "today"))["memory"]
    # By the first rules none went, by the second 21 and 31, by the third 32.
    assert shown(found) == (3, 6, 3, 0, 0)
    assert examples(found) == [("20", "", "today"), ("30", "", "today"), ("22", "", "today")]
    found = past.compared(big(1000, "today"))["memory"]
    assert shown(found) == (3, 0, 0, 3, 0)
    assert examples(found) == [("21", "second", ""), ("31", "second", ""), ("32", "third", "")]


def test_rules_that_decided_before_a_resync_give_way_to_those_of_the_resync(past: Past) -> None:
    past.deals(10, 20, to=big(15))
    for target in past.assembly(big(5)).targets.values():
        past.state.ledger.rewind(target.name, None)
        past.deliver(target)
    assert shown(past.compared(big(5))["memory"]) == (2, 2, 0, 0, 0)


def test_a_destination_that_left_the_route_is_told(past: Past) -> None:
    past.deals(1, 500, to=big(100))
    found = past.compared(Router([Rule(None, ("memory",))]))
    assert {name: shown(each) for name, each in found.items()} == {"memory": (1, 2, 1, 0, 0), "archive": (1, 0, 0, 1, 0)}
    assert examples(found["archive"]) == [("1", "otherwise", "")]
    assert examples(found["memory"]) == [("1", "", "every record")]


def test_a_destination_that_is_new_in_the_route_has_decided_nothing(past: Past) -> None:
    past.deals(1, 500, to=big(100))
    found = past.compared(Router([Rule("amount > 100", ("memory", "sales"), "big")], ("archive",)))
    assert shown(found["sales"]) == (0, 0, 0, 0, 1)


def test_routes_whose_names_begin_alike_are_told_apart(past: Past) -> None:
    past.deals(500, to=big(100))
    other = Target(
        "outer.box",
        "outer",
        past.target().spec,
        "crm.deals",
        ("id",),
        "hubspot",
        "box",
        MemoryDestination(),
        Router([Rule(None, ("box",))]),
    )
    past.deliver(other)
    assert set(past.compared(big(100))) == {"memory", "archive"}


def test_receipts_without_rules_decide_nothing(past: Past) -> None:
    past.deals(1, 500, to=big(100))
    with past.state.engine.begin() as connection:
        connection.execute(sa.update(tables.receipts).values(ruleset=None))  # as receipts of earlier versions are
    found = past.compared(big(10))
    assert {name: shown(each) for name, each in found.items()} == {"memory": (0, 0, 0, 0, 1), "archive": (0, 0, 0, 0, 1)}


def test_receipts_of_an_earlier_life_of_the_table_decide_nothing(past: Past) -> None:
    past.deals(1, 500, to=big(100))
    shutil.rmtree(Path(past.lake.url) / "crm" / "deals")
    past.lake = Lake(past.lake.url)
    past.deals(2, 600)
    assert shown(past.compared(big(100))["memory"]) == (0, 0, 0, 0, 1)


def test_only_changes_since_then_count(past: Past) -> None:
    past.deals(1, 500, to=big(100))
    moment = dt.datetime.now(dt.UTC)
    past.deals(2, 600, to=big(100))
    assert shown(past.compared(big(1000), moment)["memory"]) == (1, 0, 0, 1, 0)
    assert shown(past.compared(big(1000), dt.datetime.now(dt.UTC))["memory"]) == (0, 0, 0, 0, 0)


def test_a_deletion_is_compared_by_its_last_values(past: Past) -> None:
    past.deals(500, to=big(100))
    past.store(whole=True)
    past.deals(to=big(100))
    assert shown(past.compared(big(1000))["memory"]) == (2, 0, 0, 2, 0)


def test_samples_and_rules_that_cannot_answer_are_asked_as_they_stood(past: Past) -> None:
    sampled = Router([Rule("amount::integer > 0", ("memory",), "some", 0.5)])
    past.deals(*range(1, 101), to=sampled)
    same = past.compared(sampled)["memory"]
    assert same.before == same.now and 20 < same.now < 80
    everything = past.compared(Router([Rule("amount > 0", ("memory",), "some")]))["memory"]
    assert (everything.now, everything.added) == (100, 100 - same.before)


def test_stretches_of_any_length_give_the_same(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(0, 40, 10):
        past.deals(*range(at, at + 10), to=big(at))
    whole = past.compared(big(17))
    monkeypatch.setattr("muxly_dagster.rehearsing._STRETCH", 3)
    assert past.compared(big(17)) == whole


def test_a_route_that_is_not_there_is_told_with_the_nearest(past: Past) -> None:
    past.deals(1)
    with pytest.raises(ConfigurationError, match="there is no route named ou; did you mean out?"):
        compare_rules(past.lake, past.state, past.assembly(big(1)), "ou", LONG_AGO)
