"""The sql and files connectors on the road: a second pull stores what changed, whatever the source was."""

from pathlib import Path
from typing import Any

import pytest

from muxly_dagster import pulling
from muxly_dagster.assembly import Pull
from muxly_dagster.connector import Connector
from muxly_dagster.connectors.files import Files
from muxly_dagster.lake import Lake
from muxly_dagster.outcome import Outcome
from muxly_dagster.state import State
from muxly_dagster_tests.connectors.databases import on_mariadb, on_postgres, on_sqlite, sql


class Road:
    """A lake and its state, and one pull into it."""

    def __init__(self, home: Path, connector: Connector, **settings: Any) -> None:
        self._lake, self._state = Lake(str(home / "lake")), State.open(f"sqlite:///{home}/state.db", home)
        parsed = connector.Pull.model_validate({"stream": "things", **settings})
        self._pull = Pull("shop.things", "shop", connector, parsed, connector.stream(parsed))

    def run(self) -> Outcome:
        """Pull once."""
        return pulling.pull(self._lake, self._state, self._pull, run_id="run")

    def current(self) -> list[dict[str, Any]]:
        """What the lake holds now."""
        return sorted(self._lake.existing("shop.things").current().to_pylist(), key=str)


@pytest.mark.parametrize("peer", ["postgres", "mariadb", "sqlite"])
@pytest.mark.parametrize("cursor", ["", "changed"])
def test_a_second_pull_of_a_table_stores_only_what_changed(
    peer: str, cursor: str, request: pytest.FixtureRequest, muxly_home: Path, tmp_path: Path
) -> None:
    def run(*statements: str) -> str:
        if peer == "sqlite":
            return on_sqlite(tmp_path / "db", *statements)
        url = str(request.getfixturevalue(peer))
        {"postgres": on_postgres, "mariadb": on_mariadb}[peer](url, *statements)
        return url

    url = run(
        "create table things (id int primary key, name varchar(20), changed int)",
        "insert into things values (1, 'one', 1), (2, 'two', 2), (3, 'three', 2)",
    )
    road = Road(muxly_home, sql(url), cursor=cursor, batch_rows=2)
    assert road.run().changed == 3
    assert road.run().changed == 0
    run(
        "update things set name = 'zwei', changed = 3 where id = 2",
        "insert into things values (4, 'four', 2)",
        "delete from things where id = 1",
    )
    assert road.run().changed == (2 if cursor else 3)
    names = {row["id"]: row["name"] for row in road.current()}
    assert names == {2: "zwei", 3: "three", 4: "four"} | ({1: "one"} if cursor else {})


@pytest.mark.parametrize("key", [["id"], None])
def test_a_second_pull_of_files_stores_only_what_is_new(key: list[str] | None, muxly_home: Path, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "things.ndjson").write_text('{"id": 1}\n{"id": 2}\n')
    road = Road(muxly_home, Files.model_validate({"path": str(inbox)}), sync="new", key=key)
    assert road.run().changed == 2
    assert (road.run().read, road.run().changed) == (0, 0)
    (inbox / "things.ndjson").write_text('{"id": 1}\n{"id": 2}\n{"id": 3}\n')
    (inbox / "things.2.csv").write_text("id\n4\n")
    assert road.run().changed == 2
    assert sorted(str(row["id"]) for row in road.current()) == ["1", "2", "3", "4"]
