"""Dead letters of deliveries: corrected in their own types, sent again to the one that refused them, passed over, superseded."""

import datetime as dt
import decimal
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from muxly_dagster import catalog, records
from muxly_dagster.assembly import Target
from muxly_dagster.delivery import Stopped, edit, replay, skip
from muxly_dagster.destinations.database import Database
from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.lake import Lake
from muxly_dagster.routing import Router, Rule
from muxly_dagster.state import DeadLetter
from muxly_dagster.testing import MemoryDestination
from muxly_dagster.transform import Step
from muxly_dagster_tests.road.lane import Road, counts

ODD = pa.table(
    {
        "id": ["1"],
        "price": pa.array([decimal.Decimal("12.50")], pa.decimal128(30, 2)),
        "count": pa.array([7], pa.int64()),
        "share": pa.array([0.5], pa.float64()),
        "paid": pa.array([True], pa.bool_()),
        "at": pa.array([dt.datetime(2026, 3, 1, 12, 30, tzinfo=dt.UTC)], records.TIMESTAMP),
        "day": pa.array([dt.date(2026, 3, 1)], pa.date32()),
        "mark": pa.array([b"\x00\xff"], pa.binary()),
        "name": pa.array(["ada"], pa.string()),
        "tags": pa.array([["x", "y"]], pa.list_(pa.string())),
        "nothing": pa.array([None], pa.string()),
    }
)


def steps(*written: dict[str, Any]) -> tuple[Step, ...]:
    return tuple(catalog.step_class(name).parse(settings) for each in written for name, settings in each.items())


def deals(*numbers: int) -> list[dict[str, Any]]:
    return [{"id": str(number), "amount": number} for number in numbers]


def refused(road: Road, target: Target | None = None, table: pa.Table | None = None) -> DeadLetter:
    """One letter: everything that there is is refused."""
    if table is not None:
        with road.lake.writer("crm.deals", key=("id",), run_id="pull") as writer:
            writer.add(records.normalise(table))
            writer.finish(whole=False)
    road.memory.refuse(lambda record: "no")
    road.deliver(target)
    road.memory.refuse(lambda record: None)
    [letter] = road.state.ledger.dead_letters()
    return letter


def again(road: Road, target: Target | None = None) -> dict[str, int]:
    return replay(road.lake, road.state, target or road.target(), road.state.ledger.dead_letters(), run_id="again")


def held(road: Road) -> DeadLetter:
    [letter] = road.state.ledger.dead_letters(status=None)
    return letter


ONE = {"replayed": 1, "superseded": 0, "refused": 0}
SUPERSEDED = {"replayed": 0, "superseded": 1, "refused": 0}


# ---- corrections ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "said", "sent"),
    [
        ("price", "1234567890123456789012345.67", decimal.Decimal("1234567890123456789012345.67")),
        ("price", 12.5, decimal.Decimal("12.50")),
        ("price", 3, decimal.Decimal("3.00")),
        ("count", 8, 8),
        ("count", "8", 8),
        ("count", 8.0, 8),
        ("share", 1, 1.0),
        ("share", "0.25", 0.25),
        ("paid", False, False),
        ("paid", "false", False),
        ("at", "2026-03-02T01:00:00+01:00", dt.datetime(2026, 3, 2, tzinfo=dt.UTC)),
        ("at", "2026-03-02T00:00:00.000001Z", dt.datetime(2026, 3, 2, 0, 0, 0, 1, tzinfo=dt.UTC)),
        ("day", "2026-12-31", dt.date(2026, 12, 31)),
        ("mark", "3q0=", b"\xde\xad"),
        ("name", "grace", "grace"),
        ("name", "", ""),
        ("name", 5, "5"),
        ("name", {"first": "ada"}, '{"first":"ada"}'),
        ("tags", ["z", {"deep": 1}], '["z",{"deep":1}]'),
        ("tags", None, None),
        ("price", None, None),
        ("day", None, None),
        ("nothing", "something", "something"),
    ],
)
def test_a_correction_arrives_in_the_columns_own_type(road: Road, column: str, said: Any, sent: Any) -> None:
    letter = refused(road, table=ODD)
    edit(road.lake, road.state, letter, {column: said})
    before = road.lake.existing("crm.deals").changes(0, 1)
    assert again(road) == ONE
    rows = road.memory.memory.deliveries[-1].rows
    assert rows[column].to_pylist() == [sent]
    other = [name for name in before.column_names if name != column]
    assert rows.select(other).equals(before.select(other)), "nothing else is changed by a correction"
    assert (held(road).status, held(road).edited is not None) == ("replayed", True)
    assert road.lake.existing("crm.deals").changes(0, 1).equals(before), "the lake keeps what the source said"


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("price", "much"),
        ("price", "1.234"),
        ("price", "1e40"),
        ("price", True),
        ("count", 8.5),
        ("count", "8.5"),
        ("count", 2**70),
        ("count", True),
        ("share", "half"),
        ("paid", "perhaps"),
        ("paid", 1),
        ("at", "yesterday"),
        ("at", 0),
        ("day", "2026-02-30"),
        ("day", 20000),
        ("mark", "not base64!"),
        ("mark", 5),
    ],
)
def test_a_correction_that_is_no_value_of_the_column_is_refused(road: Road, column: str, said: Any) -> None:
    letter = refused(road, table=ODD)
    with pytest.raises(ConfigurationError, match=f"^{column}: ") as caught:
        edit(road.lake, road.state, letter, {column: said})
    assert "as it stands in the record" in str(caught.value)
    assert held(road).edited is None


def test_a_column_that_the_record_lacks_is_told_with_the_nearest(road: Road) -> None:
    letter = refused(road, table=ODD)
    with pytest.raises(ConfigurationError, match="no column prise; did you mean price"):
        edit(road.lake, road.state, letter, {"prise": 1})


def test_corrections_add_up_and_are_taken_back_together(road: Road) -> None:
    letter = refused(road, table=ODD)
    edit(road.lake, road.state, letter, {"name": "grace"})
    edit(road.lake, road.state, held(road), {"count": 9})
    assert {n: v for n, v in orjson.loads(held(road).edited or "").items() if n in ("name", "count")} == {"name": "grace", "count": 9}
    edit(road.lake, road.state, held(road), None)
    assert held(road).edited is None
    assert again(road) == ONE
    assert road.memory.data[0]["name"] == "ada"


def test_a_record_that_could_not_be_read_has_nothing_to_correct(road: Road) -> None:
    letter = DeadLetter("pull", "crm.deals", "no date", "{}", "run")
    with pytest.raises(ConfigurationError, match="could not be read, so there is nothing to correct; correct the source"):
        edit(road.lake, road.state, letter, {"a": 1})


def test_columns_that_steps_made_keep_the_types_that_steps_gave_them(road: Road) -> None:
    made = steps({"rename": {"at": "closed", "price": "value"}}, {"set": {"double": "value * 2", "note": "'n'"}}, {"drop": "mark"})
    target = road.target(steps={"": made})
    letter = refused(road, target, ODD)
    edit(road.lake, road.state, letter, {"closed": "2026-05-05T00:00:00Z", "value": "1.25", "double": "2.50", "note": 5})
    assert again(road, target) == ONE
    rows = road.memory.memory.deliveries[-1].rows
    shown = {name: rows[name][0].as_py() for name in ("closed", "value", "double", "note")}
    assert shown == {
        "closed": dt.datetime(2026, 5, 5, tzinfo=dt.UTC),
        "value": decimal.Decimal("1.25"),
        "double": decimal.Decimal("2.50"),
        "note": "5",
    }
    assert "mark" not in rows.column_names


def test_a_corrected_record_goes_by_the_rule_that_sends_it(road: Road) -> None:
    router = Router([Rule("amount > 100", ("memory",), "big")], ("memory",))
    target = road.target(router, templates={"big": {"text": "Big"}})
    road.store(*deals(500))
    letter = refused(road, target)
    edit(road.lake, road.state, letter, {"amount": 50})
    assert again(road, target) == ONE
    delivery = road.memory.memory.deliveries[-1]
    assert list(delivery.rules) == ["big"], "rules see the record as it was read"
    assert delivery.records()[0]["data"]["amount"] == 50


def test_a_corrected_record_is_sent_though_the_rules_send_it_elsewhere_by_now(road: Road) -> None:
    road.store(*deals(500))
    edit(road.lake, road.state, refused(road), {"amount": 50})
    assert again(road, road.target(Router([Rule("amount < 0", ("memory",), "debt")]))) == ONE
    assert road.memory.data == [{"id": "500", "amount": 50}]


def test_a_database_takes_a_corrected_record_into_its_row(road: Road, tmp_path: Path) -> None:
    file = tmp_path / "warehouse.db"
    with sqlite3.connect(file) as connection:
        connection.execute("create table crm_deals (id text primary key, amount integer check (amount < 100))")
    connection.close()
    target = road.target(destination=Database(url=f"sqlite:///{file}"))
    road.store(*deals(1, 200, 3))
    assert counts(road.deliver(target)) == (3, 2, 1, 0)
    [letter] = road.state.ledger.dead_letters()
    edit(road.lake, road.state, letter, {"amount": 99})
    assert again(road, target) == ONE
    with sqlite3.connect(file) as connection:
        assert connection.execute("select * from crm_deals order by id").fetchall() == [("1", 1), ("200", 99), ("3", 3)]
    connection.close()
    road.store(*deals(4))
    assert counts(road.deliver(target)) == (1, 1, 0, 0), "the offset stays where it was"


# ---- replays --------------------------------------------------------------------------------------------------------------


def test_a_replay_goes_only_to_the_one_that_refused(road: Road) -> None:
    archive = road.target(name="archive", destination=MemoryDestination())
    road.store(*deals(1))
    road.deliver(archive)
    refused(road)
    assert again(road) == ONE
    assert isinstance(archive.destination, MemoryDestination)
    assert (len(road.memory.memory.deliveries), len(archive.destination.memory.deliveries)) == (2, 1)
    assert again(road) == {"replayed": 0, "superseded": 0, "refused": 0}


def test_replays_go_in_the_order_of_the_changes(road: Road) -> None:
    road.memory.refuse(lambda record: "no")
    road.store(*deals(1, 2, 3, 4, 5))
    road.deliver()
    road.memory.refuse(lambda record: "never" if record["key"] == "3" else None)
    letters = road.state.ledger.dead_letters()
    found = replay(road.lake, road.state, road.target(), [letters[i] for i in (3, 0, 4, 1, 2)], run_id="again")
    assert found == {"replayed": 4, "superseded": 0, "refused": 1}
    assert road.ids == ["1", "2", "4", "5"]
    [left] = road.state.ledger.dead_letters()
    assert (left.reason, left.times, left.run_id) == ("never", 2, "again")


def test_a_record_with_a_newer_version_there_is_superseded(road: Road) -> None:
    road.store(*deals(1))
    refused(road)
    road.store({"id": "1", "amount": 2})
    road.deliver()
    assert again(road) == SUPERSEDED
    assert [data["amount"] for data in road.memory.data] == [2]
    assert held(road).status == "superseded"


def test_a_newer_version_that_is_not_there_yet_supersedes_nothing(road: Road) -> None:
    road.store(*deals(1))
    refused(road)
    road.store({"id": "1", "amount": 2})
    assert again(road) == ONE
    road.deliver()
    assert [data["amount"] for data in road.memory.data] == [1, 2]


def test_a_record_that_was_deleted_since_is_superseded(road: Road) -> None:
    road.store(*deals(1))
    refused(road)
    road.store(whole=True)
    road.deliver()
    assert again(road) == SUPERSEDED


def test_a_record_of_a_table_that_was_made_anew_is_superseded(road: Road) -> None:
    road.store(*deals(1))
    refused(road)
    shutil.rmtree(Path(road.lake.url) / "crm" / "deals")
    road.lake = Lake(road.lake.url)
    road.store(*deals(1))
    assert again(road) == SUPERSEDED


def test_a_replay_after_a_step_was_corrected_goes_through_the_new_step(road: Road) -> None:
    wrong, right = (road.target(steps={"": steps({"set": {"amount": f"amount * {by}"}})}) for by in (-1, 10))
    road.store(*deals(1))
    letter = refused(road, wrong)
    assert orjson.loads(letter.record)["data"]["amount"] == -1
    assert again(road, right) == ONE
    assert road.memory.data == [{"id": "1", "amount": 10}]


def test_a_record_that_a_step_or_rule_leaves_out_by_now_is_superseded(road: Road) -> None:
    road.store(*deals(1))
    refused(road)
    assert again(road, road.target(steps={"": steps({"filter": "amount > 1"})})) == SUPERSEDED


def test_a_destination_that_is_away_keeps_the_letters_open(road: Road) -> None:
    road.store(*deals(1))
    refused(road)
    road.memory.go_down(RetryLater("away"))
    with pytest.raises(RetryLater):
        again(road)
    road.memory.come_up()
    assert (held(road).status, again(road)) == ("open", ONE)


def test_likes_do_not_hold_a_replay_back(road: Road) -> None:
    target = road.with_policy(dedupe={"within": "1d", "by": ["amount"]})
    road.memory.refuse(lambda record: "no" if record["key"] == "1" else None)
    road.store({"id": "1", "amount": 5})
    road.deliver(target)
    road.store({"id": "2", "amount": 5})
    road.deliver(target)
    road.memory.refuse(lambda record: None)
    assert again(road, target) == ONE


# ---- under on_error: stop -------------------------------------------------------------------------------------------------


def stopped(road: Road, *, at: str) -> Target:
    """A delivery of four records that stopped at one of them."""
    target = road.with_policy(on_error="stop")
    road.store(*deals(1, 2, 3, 4))
    road.memory.refuse(lambda record: "no" if record["key"] == at else None)
    with pytest.raises(Stopped):
        road.deliver(target)
    return target


@pytest.mark.parametrize("at", ["1", "3"])
def test_a_letter_beyond_the_offset_is_replayed_once(road: Road, at: str) -> None:
    target = stopped(road, at=at)
    road.memory.refuse(lambda record: None)
    assert again(road, target) == ONE
    assert counts(road.deliver(target))[2:] == (0, 0)
    assert road.state.ledger.totals("out.memory") == {"read": 4, "accepted": 4, "refused": 0, "unrouted": 0}
    handed = [seq for delivery in road.memory.memory.deliveries for seq in delivery.rows[records.SEQ].to_pylist()]
    assert sorted(handed) == sorted([1, 2, 3, 4, int(at)]), "only the refused one was handed over again"


@pytest.mark.parametrize("at", ["1", "3"])
def test_a_letter_that_is_passed_over_lets_the_delivery_go_on(road: Road, at: str) -> None:
    target = stopped(road, at=at)
    assert skip(road.state, road.state.ledger.dead_letters()) == 1
    road.deliver(target)
    assert road.state.ledger.totals("out.memory") == {"read": 4, "accepted": 3, "refused": 1, "unrouted": 0}
    assert sorted(road.ids) == [key for key in ("1", "2", "3", "4") if key != at]
    handed = [seq for delivery in road.memory.memory.deliveries for seq in delivery.rows[records.SEQ].to_pylist()]
    assert sorted(handed) == [1, 2, 3, 4], "nothing was handed over a second time"
    assert skip(road.state, road.state.ledger.dead_letters(status=None)) == 0


def test_a_corrected_letter_beyond_the_offset_is_what_counts(road: Road) -> None:
    target = stopped(road, at="3")
    edit(road.lake, road.state, held(road), {"amount": 30})
    road.memory.refuse(lambda record: "no" if record["data"]["amount"] == 3 else None)
    assert again(road, target) == ONE
    assert counts(road.deliver(target)) == (2, 2, 0, 0)
    assert sorted(data["amount"] for data in road.memory.data) == [1, 2, 4, 30]
