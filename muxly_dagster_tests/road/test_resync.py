"""A resync: the newest change of every record goes again, whatever comes between, and the destination ends as the lake is."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.assembly import Target
from muxly_dagster.delivery import Stopped, lag, resync, rewind, skip
from muxly_dagster.destinations.database import Database
from muxly_dagster.errors import RetryLater
from muxly_dagster.lake import Lake
from muxly_dagster.routing import Router, Rule
from muxly_dagster_tests.road.lane import BIG, Road, counts


def deals(*pairs: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"id": key, "amount": amount} for key, amount in pairs]


def delivered(road: Road, target: Target) -> None:
    """Five changes of three records, the second of which is gone by now."""
    road.store(*deals(("a", 1), ("b", 2), ("c", 3)))
    road.store(*deals(("a", 10), ("c", 3)), whole=True)
    assert counts(road.deliver(target)) == (5, 5, 0, 0)
    road.memory.memory.taken.clear()


def taken(road: Road) -> list[tuple[str, str, int]]:
    return [(each["key"], each["op"], each["data"]["amount"]) for each in road.memory.memory.taken]


def test_only_the_newest_change_of_each_record_goes_again(road: Road) -> None:
    target = road.target()
    delivered(road, target)
    resync(road.lake, road.state, target)
    assert lag(road.lake, road.state, target) == 5
    assert counts(road.deliver(target)) == (5, 3, 0, 2)
    assert taken(road) == [("c", "upsert", 3), ("a", "upsert", 10), ("b", "delete", 2)]
    assert counts(road.deliver(target)) == (0, 0, 0, 0)


def test_the_same_changes_have_the_same_ids_as_before(road: Road) -> None:
    target = road.target()
    road.store(*deals(("a", 1), ("b", 2)))
    road.deliver(target)
    before = [each["id"] for each in road.memory.memory.taken]
    road.memory.memory.taken.clear()
    resync(road.lake, road.state, target)
    road.deliver(target)
    assert [each["id"] for each in road.memory.memory.taken] == before


def test_from_the_start_every_change_goes_again(road: Road) -> None:
    target = road.target()
    delivered(road, target)
    rewind(road.lake, road.state, target)
    assert counts(road.deliver(target)) == (5, 5, 0, 0)


def test_what_failed_in_the_middle_goes_on_with_the_resync(road: Road) -> None:
    target = road.target()
    delivered(road, target)
    resync(road.lake, road.state, target)
    road.memory.go_down(RetryLater("away"), after_records=1)
    with pytest.raises(RetryLater):
        road.deliver(target, attempts=1)
    assert taken(road) == [("c", "upsert", 3)]
    road.memory.come_up()
    assert road.deliver(target).accepted == 2
    assert taken(road) == [("c", "upsert", 3), ("a", "upsert", 10), ("b", "delete", 2)]
    offset = road.state.ledger.offset("out.memory")
    assert offset is not None and offset.seq == 5


def test_batches_end_in_the_middle_of_a_resync(road: Road) -> None:
    target = road.with_policy(batching={"count": 1})
    delivered(road, target)
    resync(road.lake, road.state, target)
    road.deliver(target)
    assert taken(road) == [("c", "upsert", 3), ("a", "upsert", 10), ("b", "delete", 2)]


def test_changes_that_come_meanwhile_go_whether_or_not_they_are_the_newest(road: Road) -> None:
    target = road.target()
    delivered(road, target)
    resync(road.lake, road.state, target)
    road.store(*deals(("a", 11)))
    road.store(*deals(("a", 12), ("d", 4)))
    assert counts(road.deliver(target)) == (8, 6, 0, 2)
    assert taken(road)[-3:] == [("a", "upsert", 11), ("a", "upsert", 12), ("d", "upsert", 4)]
    assert taken(road)[:3] == [("c", "upsert", 3), ("a", "upsert", 10), ("b", "delete", 2)]


def test_what_the_rules_send_elsewhere_is_not_sent_by_a_resync(road: Road) -> None:
    target = road.target(BIG)
    road.store(*deals(("a", 500), ("b", 5), ("c", 700)))
    road.store(*deals(("a", 5)))
    road.deliver(target)
    road.memory.memory.taken.clear()
    resync(road.lake, road.state, target)
    assert counts(road.deliver(target)) == (4, 1, 0, 3)
    assert taken(road) == [("c", "upsert", 700)], "the newest change of a went to the archive"


def test_a_resync_forgets_likes_and_what_was_taken_ahead(road: Road) -> None:
    target = road.with_policy(dedupe={"within": "1d"})
    road.store(*deals(("a", 1)))
    road.deliver(target)
    road.memory.memory.taken.clear()
    resync(road.lake, road.state, target)
    assert counts(road.deliver(target)) == (1, 1, 0, 0)


def test_the_ledger_counts_a_resync_as_what_it_was(road: Road) -> None:
    target = road.target()
    delivered(road, target)
    resync(road.lake, road.state, target)
    road.deliver(target)
    table = road.lake.existing("crm.deals")
    [receipt] = road.state.ledger.receipts("out.memory", table_id=table.table_id)
    assert (receipt.after, receipt.upto, receipt.read, receipt.accepted, receipt.unrouted) == (0, 5, 5, 3, 2)
    resync(road.lake, road.state, target)
    road.memory.refuse(lambda record: "no" if record["key"] == "a" else None)
    assert counts(road.deliver(target)) == (5, 2, 1, 2)


def test_a_record_that_a_person_passed_over_stays_passed_over(road: Road) -> None:
    target = road.with_policy(on_error="stop")
    road.store(*deals(("a", 1), ("b", 2)))
    road.memory.refuse(lambda record: "no" if record["key"] == "a" else None)
    with pytest.raises(Stopped):
        road.deliver(target)
    skip(road.state, road.state.ledger.dead_letters())
    assert counts(road.deliver(target)) == (2, 1, 1, 0)
    resync(road.lake, road.state, target)
    assert counts(road.deliver(target)) == (2, 1, 1, 0)


def test_a_resync_before_anything_was_delivered_is_an_ordinary_first_run(road: Road) -> None:
    target = road.target()
    road.store(*deals(("a", 1)))
    road.store(*deals(("a", 2)))
    resync(road.lake, road.state, target)
    assert counts(road.deliver(target)) == (2, 1, 0, 1)


def test_a_table_that_was_made_anew_ends_the_resync_of_the_old_one(road: Road) -> None:
    target = road.target()
    delivered(road, target)
    resync(road.lake, road.state, target)
    shutil.rmtree(Path(road.lake.url) / "crm" / "deals")
    road.lake = Lake(road.lake.url)
    road.store(*deals(("a", 1)))
    road.store(*deals(("a", 2)))
    assert counts(road.deliver(target)) == (2, 2, 0, 0)


# ---- databases ------------------------------------------------------------------------------------------------------------


def rows(file: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(file) as connection:
        found = connection.execute("select id, amount from crm_deals order by id").fetchall()
    connection.close()
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "warehouse.db"


def test_a_database_that_people_changed_is_put_right(road: Road, file: Path) -> None:
    target = road.target(destination=Database(url=f"sqlite:///{file}", mode="mirror"))
    delivered(road, target)
    with sqlite3.connect(file) as connection:
        connection.execute("update crm_deals set amount = 99 where id = 'a'")
        connection.execute("insert into crm_deals values ('b', 2)")
        connection.execute("delete from crm_deals where id = 'c'")
    connection.close()
    resync(road.lake, road.state, target)
    assert counts(road.deliver(target)) == (5, 3, 0, 2)
    assert rows(file) == [("a", 10), ("c", 3)]


def test_a_database_ends_as_the_lake_is_though_it_fails_and_new_changes_come(road: Road, file: Path) -> None:
    target = road.target(destination=Database(url=f"sqlite:///{file}", mode="mirror", batching={"count": 1}))
    delivered(road, target)
    resync(road.lake, road.state, target)
    blocker = sqlite3.connect(file, isolation_level=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("muxly_dagster.destinations.database.sqlite._BUSY_SECONDS", 0.05)
        blocker.execute("begin immediate")
        with pytest.raises(RetryLater):
            road.deliver(target, attempts=1)
        blocker.execute("rollback")
    blocker.close()
    road.store(*deals(("a", 20), ("d", 4)))
    road.deliver(target)
    assert rows(file) == [("a", 20), ("c", 3), ("d", 4)]


def test_a_crash_behind_the_databases_commit_repeats_nothing(road: Road, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = road.target(destination=Database(url=f"sqlite:///{file}", mode="mirror", batching={"count": 1}))
    delivered(road, target)
    resync(road.lake, road.state, target)

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(road.state.ledger), "record", killed)
        with pytest.raises(Killed):
            road.deliver(target)
    again = road.deliver(target)
    assert (again.read, again.accepted, again.unrouted) == (5, 3, 2), "what was confirmed before the crash is counted after it"
    assert rows(file) == [("a", 10), ("c", 3)]


def test_two_deliveries_of_a_route_are_resynced_apart(road: Road) -> None:
    router = Router([Rule(None, ("memory", "archive"))])
    first, second = road.target(router), road.target(router, "archive")
    road.store(*deals(("a", 1)))
    road.deliver(first)
    road.deliver(second)
    resync(road.lake, road.state, first)
    assert (lag(road.lake, road.state, first), lag(road.lake, road.state, second)) == (1, 0)
