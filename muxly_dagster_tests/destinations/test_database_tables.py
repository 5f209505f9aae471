"""Tables are made, found and added to as the source's columns ask, and what is somebody else's in them stays."""

import pytest

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.warehouse import Server


def test_a_table_of_somebody_elses_gets_missing_columns_and_keeps_its_own(server: Server) -> None:
    server.run("create table crm_deals (id integer, note varchar(20) default 'none')")
    receipt = server.destination().deliver(delivery([{"id": 1, "name": "Ada"}]))
    assert server.rows() == [{"id": 1, "note": "none", "name": "Ada"}]
    assert [change.partition(" (")[0] for change in receipt.detail["table_changes"]] == ["added column name", "added a unique index on id"]


def test_a_column_of_somebody_elses_that_does_not_fit_is_named_with_what_to_do(server: Server) -> None:
    server.run("create table crm_deals (id bigint primary key, amount integer)")
    with pytest.raises(ConfigurationError, match=r"column amount is (?i:int)") as caught:
        server.destination().deliver(delivery([{"id": 1, "amount": "a lot"}]))
    assert "set another `table`" in str(caught.value)
    assert [type_.lower().startswith(start) for type_, start in zip(server.types().values(), ("bigint", "int"), strict=True)] == [
        True,
        True,
    ]


def test_a_first_load_and_a_second_one_leave_each_key_once(postgres_server: Server) -> None:
    destination = postgres_server.destination(mode="mirror")
    destination.deliver(delivery([{"id": n % 3_000, "n": n} for n in range(5_000)]))
    destination.deliver(delivery([{"id": n, "n": -n} for n in range(2_000, 4_000)], after=5_000))
    found = {r["id"]: r["n"] for r in postgres_server.rows()}
    assert found == {n: (-n if n >= 2_000 else n + 3_000) for n in range(4_000)}


def test_duplicates_in_an_existing_table_are_for_a_person_to_remove(server: Server) -> None:
    server.run("create table crm_deals (id bigint)")
    server.run("insert into crm_deals values (1), (1)")
    with pytest.raises(ConfigurationError, match="several rows with the same id"):
        server.destination().deliver(delivery([{"id": 1}]))


def test_without_evolve_the_table_is_left_as_it_is(server: Server) -> None:
    destination = server.destination(evolve=False)
    with pytest.raises(ConfigurationError, match="does not exist"):
        destination.deliver(delivery([{"id": 1}]))
    server.run("create table crm_deals (id bigint primary key)")
    assert destination.deliver(delivery([{"id": 1}])).accepted == 1
    with pytest.raises(ConfigurationError, match="added column name"):
        destination.deliver(delivery([{"id": 2, "name": "Ada"}], after=1))
    assert list(server.types()) == ["id"]


def test_a_view_is_no_place_to_deliver_to(server: Server) -> None:
    server.run("create view crm_deals as select 1 as id")
    with pytest.raises(ConfigurationError, match="view"):
        server.destination().deliver(delivery([{"id": 1}]))


@pytest.mark.parametrize("kind", ["postgres", "duckdb"])
def test_a_schema_is_created_where_there_are_schemas(request: pytest.FixtureRequest, kind: str) -> None:
    server: Server = request.getfixturevalue(f"{kind}_server")
    destination = server.destination(schema="mart", mode="mirror", indexes=[["name"]])
    destination.deliver(delivery([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]))
    destination.deliver(delivery([{"id": 1, "name": None}, {"id": 2, "name": 5}], ops=["delete", "upsert"], after=2))
    assert [(r["id"], str(r["name"])) for r in server.rows("mart.crm_deals")] == [(2, "5")]
    assert server.run("select seq from mart._muxly_offsets") == [{"seq": 4}]


def test_a_postgres_schema_is_created_and_holds_the_offsets(postgres_server: Server) -> None:
    destination = postgres_server.destination(schema="mart")
    destination.deliver(delivery([{"id": 1}]))
    assert postgres_server.rows("mart.crm_deals") == [{"id": 1}]
    assert postgres_server.run("select seq from mart._muxly_offsets") == [{"seq": 1}]
    assert destination.position("big_deals.warehouse", "0b8e1f9c") == 1
    assert destination.public_name("crm.deals") == "mart.crm_deals"


def test_long_column_names_do_not_run_into_each_other_in_postgres(postgres_server: Server) -> None:
    one, other = "x" * 70 + "a", "x" * 70 + "b"
    destination = postgres_server.destination()
    destination.deliver(delivery([{"id": 1, one: "1", other: "2"}]))
    destination.deliver(delivery([{"id": 1, one: "3", other: "4"}], after=1))
    (row,) = postgres_server.rows()
    assert list(row.values()) == [1, "3", "4"]


def test_column_names_that_sqlite_takes_for_one_are_pointed_out(sqlite_server: Server) -> None:
    with pytest.raises(ConfigurationError, match=r"the columns Name and name of crm\.deals"):
        sqlite_server.destination().deliver(delivery([{"id": 1, "Name": "a", "name": "b"}]))
    renamed = sqlite_server.destination(columns={"Name": "other_name"})
    assert renamed.deliver(delivery([{"id": 1, "Name": "a", "name": "b"}])).accepted == 1


def test_an_index_is_created_once_where_it_is_missing(server: Server) -> None:
    destination = server.destination(indexes=[["stage", "id"], ["stage"]], columns={"stage": "the stage"})
    first = destination.deliver(delivery([{"id": 1, "stage": "open"}]))
    again = destination.deliver(delivery([{"id": 2, "stage": "won"}], after=1))
    assert first.detail["table_changes"] == ["created the table", "added an index on the stage, id", "added an index on the stage"]
    assert "table_changes" not in again.detail
    more = server.destination(indexes=[["stage"], ["id", "stage"]], columns={"stage": "the stage"})
    assert more.deliver(delivery([{"id": 3, "stage": "x"}], after=2)).detail["table_changes"] == ["added an index on id, the stage"]


def test_an_index_over_a_column_that_is_nowhere_is_a_mistake(server: Server) -> None:
    with pytest.raises(ConfigurationError, match="`indexes` names the column colour"):
        server.destination(indexes=[["colour"]]).deliver(delivery([{"id": 1}]))
