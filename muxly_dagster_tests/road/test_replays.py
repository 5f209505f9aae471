"""A dead letter that was replayed, refused anew and replayed again arrives both times, also where positions are stored with the rows."""

import sqlite3
from pathlib import Path

from muxly_dagster.delivery import replay, rewind
from muxly_dagster.destinations.database import Database
from muxly_dagster_tests.road.lane import Road, deals


def test_a_letter_that_comes_back_after_a_delivery_from_the_start_is_written_again(road: Road, tmp_path: Path) -> None:
    file = tmp_path / "warehouse.db"
    with sqlite3.connect(file) as connection:
        connection.execute("create table crm_deals (id text primary key, amount bigint check (amount < 3))")
    connection.close()
    target = road.target(destination=Database(url=f"sqlite:///{file}"))
    road.store(*deals(1, 3))

    def rows() -> list[str]:
        with sqlite3.connect(file) as looking:
            found = [row[0] for row in looking.execute("select id from crm_deals order by id")]
        looking.close()
        return found

    def constraint(text: str) -> None:
        with sqlite3.connect(file) as changing:
            changing.executescript(
                f"create table anew (id text primary key, amount bigint {text});"
                "insert into anew select * from crm_deals where amount < 3; drop table crm_deals; alter table anew rename to crm_deals"
            )
        changing.close()

    for _ in range(2):
        assert road.deliver(target).refused == 1
        constraint("")
        counts = replay(road.lake, road.state, target, road.state.ledger.dead_letters(), run_id="again")
        assert counts == {"replayed": 1, "superseded": 0, "refused": 0}
        assert rows() == ["1", "3"]
        constraint("check (amount < 3)")
        rewind(road.lake, road.state, target)
