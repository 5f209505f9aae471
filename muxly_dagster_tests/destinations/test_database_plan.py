"""A rehearsal counts what a delivery would do and changes nothing, in every database."""

from typing import Any

import pytest

from muxly_dagster.destination import Plan
from muxly_dagster.errors import ConfigurationError, RecordRefused
from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.warehouse import Server


def state(server: Server) -> Any:
    """Everything that a delivery could have changed."""
    return (server.types(), server.rows(), server.run("select delivery, seq from _muxly_offsets where delivery <> '' order by delivery"))


def test_a_first_delivery_is_planned_without_a_trace(server: Server) -> None:
    plan = server.destination(mode="mirror", indexes=[["name"]]).plan(delivery([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}, {"id": 2}]))
    assert (plan.inserted, plan.updated, plan.deleted, plan.refused) == (2, 0, 0, 0)
    assert "created the table" in plan.notes
    assert server.types() == {} if server.kind != "duckdb" else not server.run("select * from duckdb_tables()")


def test_a_delivery_over_existing_rows_is_planned_exactly(server: Server) -> None:
    destination = server.destination(mode="mirror")
    destination.deliver(delivery([{"id": n, "name": "a"} for n in range(5)]))
    before = state(server)
    stretch = delivery([{"id": n, "name": "b"} for n in (3, 4, 5, 6, 0, 9)], ops=["upsert"] * 4 + ["delete"] * 2, after=5)
    assert destination.plan(stretch) == Plan(inserted=2, updated=2, deleted=1)
    assert state(server) == before
    receipt = destination.deliver(stretch)
    assert (receipt.detail["rows_written"], receipt.detail["rows_deleted"]) == (4, 1)
    assert [(r["id"], r["name"]) for r in server.rows()] == [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "b"), (6, "b")]


def test_a_change_of_the_table_is_told_and_not_made(server: Server) -> None:
    destination = server.destination(mode="mirror")
    destination.deliver(delivery([{"id": 1}, {"id": 2}]))
    before = state(server)
    rows = [{"id": 1, "city": None}, {"id": 2, "city": "Berlin"}, {"id": 3, "city": "Rome"}]
    plan = destination.plan(delivery(rows, ops=["delete", "upsert", "upsert"], after=2))
    assert (plan.inserted, plan.updated, plan.deleted) == (1, 1, 1)
    assert len(plan.notes) == 1 and plan.notes[0].startswith("added column city")
    assert state(server) == before


def test_what_replace_would_empty_is_counted(server: Server) -> None:
    server.run("create table crm_deals (id bigint primary key, n bigint)")
    server.run("insert into crm_deals values (1, 1), (77, 1)")
    plan = server.destination(mode="replace").plan(delivery([{"id": 1, "n": 2}, {"id": 2, "n": 2}]))
    assert (plan.inserted, plan.updated, plan.deleted) == (2, 0, 2)
    assert [r["id"] for r in server.rows()] == [1, 77]


def test_events_are_planned_as_new_rows(server: Server) -> None:
    destination = server.destination(mode="append")
    destination.deliver(delivery([{"id": 1}]))
    assert destination.plan(delivery([{"id": 1}, {"id": 1}], after=1)) == Plan(inserted=2)
    assert len(server.rows()) == 1


def test_what_was_delivered_before_is_said_to_be(server: Server) -> None:
    destination = server.destination()
    stretch = delivery([{"id": 1}])
    destination.deliver(stretch)
    plan = destination.plan(stretch)
    assert plan == Plan(notes=("these changes were delivered before",))


def test_a_batch_that_would_be_refused_is_refused_in_the_rehearsal(server: Server) -> None:
    server.run("create table crm_deals (id bigint primary key, amount bigint not null check (amount < 100))")
    destination = server.destination()
    destination.deliver(delivery([{"id": 1, "amount": 1}]))
    before = state(server)
    with pytest.raises(RecordRefused, match="amount"):
        destination.plan(delivery([{"id": 2, "amount": 1}, {"id": 3, "amount": 100}], after=1))
    assert destination.plan(delivery([{"id": 2, "amount": 1}], after=1)) == Plan(inserted=1)
    assert state(server) == before


def test_a_table_that_cannot_be_fitted_is_told_in_the_rehearsal(server: Server) -> None:
    server.run("create table crm_deals (id bigint primary key, amount integer)")
    with pytest.raises(ConfigurationError, match="column amount"):
        server.destination().plan(delivery([{"id": 1, "amount": "a lot"}]))


def test_a_large_rehearsal_counts_large_numbers(own_server: Server) -> None:
    destination = own_server.destination(mode="mirror")
    destination.deliver(delivery([{"id": n, "n": n} for n in range(3_000)]))
    rows = [{"id": n, "n": -n} for n in range(2_000, 5_000)]
    assert destination.plan(delivery(rows, after=3_000)) == Plan(inserted=2_000, updated=1_000)


@pytest.mark.parametrize(
    ("fields", "passes"),
    [({}, False), ({"mode": "append"}, False), ({"mode": "mirror"}, True), ({"mode": "replace"}, True), ({"deletes": True}, True)],
)
def test_it_says_whether_it_passes_deletes(sqlite_server: Server, fields: dict[str, Any], passes: bool) -> None:
    assert sqlite_server.destination(**fields).passes_deletes is passes
