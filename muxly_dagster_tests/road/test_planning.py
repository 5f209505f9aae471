"""A plan says what the next delivery would do, and changes nothing: not at the destination, not in the ledger, not in the lake."""

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.assembly import Target
from muxly_dagster.delivery import plan, resync
from muxly_dagster.destination import Delivery, Message, Plan
from muxly_dagster.destinations.database import Database
from muxly_dagster.destinations.file import File
from muxly_dagster.errors import RecordRefused, RetryLater
from muxly_dagster.testing import MemoryDestination
from muxly_dagster_tests.road.lane import BIG, Road, counts


def deals(*numbers: int, plus: int = 0) -> list[dict[str, Any]]:
    return [{"id": str(number), "amount": number + plus} for number in numbers]


def planned(road: Road, target: Target) -> tuple[int, int, int, int]:
    """Inserted, updated, deleted, refused."""
    found = plan(road.lake, road.state, target, patience=road.patience()).plan
    return found.inserted, found.updated, found.deleted, found.refused


# ---- by history ---------------------------------------------------------------------------------------------------------


def test_by_history_a_first_change_is_new_and_a_later_one_changes_it(road: Road) -> None:
    target = road.target()
    road.store(*deals(1, 2, 3))
    assert planned(road, target) == (3, 0, 0, 0)
    road.deliver(target)
    assert planned(road, target) == (0, 0, 0, 0)
    road.store(*deals(1, 2, plus=10), *deals(4), whole=True)
    road.store(*deals(4, plus=1), *deals(1, 2, plus=10))
    assert planned(road, target) == (1, 3, 1, 0), "1 and 2 change, 4 comes and changes, 3 goes"
    told = plan(road.lake, road.state, target)
    assert (told.target, told.destination, told.waiting, told.sent) == ("out.memory", "crm.deals", 5, 5)


def test_a_key_is_new_once_however_long_the_stretch(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxly_dagster.delivery.planning._STRETCH", 2)
    for plus in range(4):
        road.store(*deals(1, 2, 3, plus=plus))
    assert planned(road, road.target()) == (3, 9, 0, 0)


def test_only_what_the_rules_send_counts(road: Road) -> None:
    road.store(*deals(5, 500, 501))
    told = plan(road.lake, road.state, road.target(BIG))
    assert (told.waiting, told.sent, told.plan) == (3, 2, Plan(inserted=2))


def test_what_is_held_back_as_alike_is_not_sent_and_nothing_remembers_the_plan(road: Road) -> None:
    target = road.with_policy(dedupe={"within": "1h", "by": ["amount"]})
    road.store({"id": "1", "amount": 1}, {"id": "2", "amount": 1})
    for _ in range(2):
        assert plan(road.lake, road.state, target, patience=road.patience()).sent == 1
    assert counts(road.deliver(target)) == (2, 1, 0, 1)


def test_a_resync_is_planned_as_what_it_sends(road: Road) -> None:
    target = road.target()
    for plus in range(3):
        road.store(*deals(1, 2, plus=plus))
    road.deliver(target)
    resync(road.lake, road.state, target)
    told = plan(road.lake, road.state, target)
    assert (told.waiting, told.sent) == (6, 2)


class Choosy(MemoryDestination):
    """Refuses a batch with a record that it cannot render, without saying which."""

    def render(self, delivery: Delivery) -> list[Message]:
        for record in delivery.records():
            if record["data"]["amount"] == 13:
                raise RecordRefused("no message can be made of 13")
        return []


def test_what_would_be_refused_is_found_by_halving(road: Road) -> None:
    road.store(*deals(*range(20)))
    told = plan(road.lake, road.state, road.target(destination=Choosy())).plan
    assert (told.inserted, told.refused, told.notes) == (19, 1, ("refused: no message can be made of 13",))


class OneRow(MemoryDestination):
    """Counts what it is asked to plan."""

    @property
    def one_row_per_key(self) -> bool:
        return True

    def plan(self, delivery: Delivery) -> Plan:
        return Plan(inserted=len(delivery.rows))


def test_where_a_key_has_one_row_only_its_last_change_counts(road: Road) -> None:
    for plus in (0, 1000, 2000):
        road.store(*deals(1, 2, plus=plus))
    assert planned(road, road.target(destination=OneRow())) == (2, 0, 0, 0)


def test_its_last_change_is_the_last_that_goes_there(road: Road) -> None:
    road.store(*deals(500))
    road.store({"id": "500", "amount": 1})
    assert planned(road, road.target(BIG, destination=OneRow())) == (1, 0, 0, 0), "the second change goes to the archive"


def test_a_passing_trouble_is_waited_out_and_one_that_stays_is_told(road: Road) -> None:
    class Away(MemoryDestination):
        def plan(self, delivery: Delivery) -> Plan:
            raise RetryLater("away")

    road.store(*deals(1))
    with pytest.raises(RetryLater, match="away"):
        plan(road.lake, road.state, road.target(destination=Away()), patience=road.patience(3))
    assert len(road.waited) == 2


def test_a_guard_that_would_stop_the_run_is_told(road: Road) -> None:
    class Mirror(MemoryDestination):
        @property
        def passes_deletes(self) -> bool:
            return True

    target = road.target(destination=Mirror(guard={"at_least": 5}))
    road.store(*deals(*range(20)))
    road.deliver(target)
    road.store(*deals(1), whole=True)
    told = plan(road.lake, road.state, target)
    assert told.warning == "it would delete 19 of 20 rows (95%); the guard allows 50%"
    assert told.plan.deleted == 19


# ---- real destinations ----------------------------------------------------------------------------------------------------


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder with its content."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_plan_for_files_writes_none(road: Road, tmp_path: Path) -> None:
    target = road.target(destination=File(path=str(tmp_path / "out"), format="ndjson"))
    road.store(*deals(1, 2))
    assert planned(road, target) == (2, 0, 0, 0)
    assert not (tmp_path / "out").exists()
    road.deliver(target)
    before = fingerprint(tmp_path / "out")
    road.store(*deals(1, plus=1), whole=True)
    assert planned(road, target) == (0, 1, 1, 0)
    assert fingerprint(tmp_path / "out") == before


def dump(file: Path) -> list[str]:
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
        found = list(connection.iterdump())
    connection.close()
    return found


def test_a_plan_for_a_database_tells_what_happens_then_and_changes_nothing(road: Road, tmp_path: Path) -> None:
    file = tmp_path / "warehouse.db"
    target = road.target(destination=Database(url=f"sqlite:///{file}", mode="mirror"))
    road.store(*deals(1, 2, 3))
    told = plan(road.lake, road.state, target)
    assert (told.plan.inserted, told.destination) == (3, "crm_deals")
    assert any("created" in note for note in told.plan.notes)
    assert not file.exists()
    road.deliver(target)
    with sqlite3.connect(file) as connection:
        connection.execute("delete from crm_deals where id = '2'")  # what the history cannot know
    connection.close()
    road.store({"id": "2", "amount": 20, "note": "x"}, {"id": "3", "amount": 30}, {"id": "4", "amount": 4}, whole=True)
    before, ledger = dump(file), road.state.ledger.totals("out.memory")
    told = plan(road.lake, road.state, target)
    assert (told.plan.inserted, told.plan.updated, told.plan.deleted) == (2, 1, 1)
    assert any("note" in note for note in told.plan.notes), told.plan.notes
    assert (dump(file), road.state.ledger.totals("out.memory")) == (before, ledger)
    outcome = road.deliver(target)
    assert outcome.metadata["last_receipt"]["rows_written"] == 3 and outcome.metadata["last_receipt"]["rows_deleted"] == 1


def test_a_plan_for_a_database_counts_what_it_refuses(road: Road, tmp_path: Path) -> None:
    file = tmp_path / "warehouse.db"
    with sqlite3.connect(file) as connection:
        connection.execute("create table crm_deals (id text primary key, amount integer check (amount < 10))")
    connection.close()
    target = road.target(destination=Database(url=f"sqlite:///{file}"))
    road.store(*deals(1, 2, 30, 4))
    assert planned(road, target) == (3, 0, 0, 1)
    assert counts(road.deliver(target)) == (4, 3, 1, 0)


def test_a_plan_changes_nothing_of_muxlys_own(road: Road, tmp_path: Path) -> None:
    target = road.with_policy(BIG, batching={"age": "1h"}, dedupe={"within": "1h"}, on_error="stop")
    road.store(*deals(500, 5))
    road.deliver(target)
    road.store(*deals(501, 500, 5))
    ledger = road.state.ledger

    def remembered() -> list[Any]:
        return [
            ledger.offset("out.memory"),
            ledger.receipts(),
            ledger.dead_letters(status=None),
            road.state.waiting.all(),
            road.state.breakers.all(),
        ]

    before = fingerprint(tmp_path / "lake"), dump(tmp_path / "state.db"), remembered()
    plan(road.lake, road.state, target)
    assert (fingerprint(tmp_path / "lake"), dump(tmp_path / "state.db"), remembered()) == before
    assert road.memory.memory.deliveries == []
