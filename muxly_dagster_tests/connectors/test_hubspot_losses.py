"""How a pull of HubSpot's records could lose some, or delete one too many: every way that was thought of, and that it does not."""

import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from muxly_dagster.errors import SourceError
from muxly_dagster.testing import Pulled
from muxly_dagster_tests.peers.hubspot import HubspotAccount


@pytest.fixture
def account() -> Iterator[HubspotAccount]:
    with HubspotAccount() as account:
        yield account


@pytest.fixture
def pulled(account: HubspotAccount, tmp_path: Path) -> Pulled:
    return Pulled(account, tmp_path)


# ---- answers that are not whole -----------------------------------------------------------------------------------------


def test_a_record_that_cannot_be_read_just_now_stops_the_pull_and_comes_with_the_next(account: HubspotAccount, pulled: Pulled) -> None:
    account.put(1, 2, 3, text="first")
    pulled.run()
    account.put(2, 3, text="second")
    account.unreadable_now = {2}
    with pytest.raises(SourceError, match="could not read some records"):
        pulled.run()
    account.unreadable_now = set()
    pulled.run()
    assert pulled.texts() == {1: "first", 2: "second", 3: "second"}


def test_a_record_that_cannot_be_read_just_now_is_not_taken_for_deleted(account: HubspotAccount, pulled: Pulled) -> None:
    account.pull = {"stream": "contacts", "history": ["firstname"]}
    account.put(1, 2, 3, text="first")
    pulled.run()
    account.unreadable_now = {2}
    with pytest.raises(SourceError, match="could not read some records"):
        pulled.run(from_start=True)
    assert set(pulled.texts()) == {1, 2, 3}


def test_associations_that_fail_once_cost_no_record(account: HubspotAccount, pulled: Pulled) -> None:
    """Records of 45 KB make pages so large that some of them still wait while others are given on."""
    account.pull = {"stream": "contacts", "associations": ["deals"]}
    account.put(*range(1, 251), text="x" * 45_000)
    account.associations_failures = 1
    with pytest.raises(SourceError, match="associations"):
        pulled.run()
    pulled.run()
    assert set(pulled.rows()) == set(range(1, 251))


def test_many_large_records_with_times_in_milliseconds_are_all_mended(account: HubspotAccount, pulled: Pulled) -> None:
    account.define("contacts", closedate="datetime")
    for number in range(1, 301):
        account.write_now("contacts", number, firstname="x" * 40_000, closedate="1767225600123")
    outcome = pulled.run()
    assert (outcome.changed, outcome.refused) == (300, 0)
    assert {row["closedate"] for row in pulled.rows().values()} == {dt.datetime(2026, 1, 1, 0, 0, 0, 123000, dt.UTC)}


def test_an_empty_page_in_the_middle_of_a_search_is_not_its_end(account: HubspotAccount, pulled: Pulled) -> None:
    account.put(1, 2, text="first")
    pulled.run()
    account.put(1, 2, text="second")
    account.empty_searches = 1
    with pytest.raises(SourceError, match="says that there is more"):
        pulled.run()
    pulled.run()
    assert pulled.texts() == {1: "second", 2: "second"}


@pytest.mark.parametrize("path", ["/crm/properties", "/search", "/batch/read", "/contacts", "/crm/associations"])
def test_an_answer_that_is_none_of_hubspots_is_told_and_the_next_pull_goes_on(account: HubspotAccount, pulled: Pulled, path: str) -> None:
    account.pull = {"stream": "contacts", "associations": ["deals"]}
    account.put(1, 2, text="first")
    pulled.run()
    account.put(2, text="second")
    account.garbled = path
    with pytest.raises(SourceError) as caught:
        pulled.run()
    assert caught.value.do and caught.value.where
    account.garbled = ""
    pulled.run()
    assert pulled.texts() == {1: "first", 2: "second"}


# ---- places that are void -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("history", [[], ["firstname"]], ids=["by list", "by id"])
def test_a_first_pull_whose_token_is_void_begins_again(account: HubspotAccount, pulled: Pulled, history: list[str]) -> None:
    account.pull = {"stream": "contacts", "history": history}
    account.page = 4
    account.put(*range(1, 121), text="first")
    account.break_after(30 if history else 10)
    with pytest.raises(SourceError):
        pulled.run()
    account.mend()
    assert 0 < len(pulled.texts()) < 120
    del account.objects["contacts"][1]
    account.void_tokens = account.list_tokens
    account.list_tokens = set()
    account.page = 100
    pulled.run()
    assert set(pulled.texts()) == set(range(2, 121)), "read in one go, it tells what is gone"


# ---- things that happen in between --------------------------------------------------------------------------------------


def test_a_record_that_was_archived_and_restored_comes_back_with_the_next_pull(account: HubspotAccount, pulled: Pulled) -> None:
    account.put(1, 2, text="first")
    pulled.run()
    account.delete(2)
    pulled.run()
    assert set(pulled.texts()) == {1}
    account.restore("contacts", 2)
    pulled.run()
    assert pulled.texts() == {1: "first", 2: "first"}


def test_a_merge_between_two_pages_leaves_only_the_survivor_in_the_end(account: HubspotAccount, pulled: Pulled) -> None:
    account.page = 1
    account.put(1, 2, 3, text="first")

    def merge() -> None:
        if any("after=1" in asked.target for asked in account.server.asked):
            account.merge("contacts", 2, 1)
            account.on_list = lambda: None

    account.on_list = merge  # record 1 has been read, its survivor not yet
    pulled.run()
    account.now += dt.timedelta(minutes=1)
    pulled.run()
    assert set(pulled.texts()) == {2, 3}


def test_a_record_that_changes_while_it_is_being_read_comes_again(account: HubspotAccount, pulled: Pulled) -> None:
    account.page = 1
    account.put(1, 2, text="first")

    def change() -> None:
        if any("after=1" in asked.target for asked in account.server.asked):
            account.put(1, text="changed when it was read already")
            account.on_list = lambda: None

    account.on_list = change
    pulled.run()
    pulled.run()
    assert pulled.texts() == {1: "changed when it was read already", 2: "first"}


# ---- properties that change ---------------------------------------------------------------------------------------------


def test_a_number_that_becomes_a_text_property_keeps_all_its_values(account: HubspotAccount, pulled: Pulled) -> None:
    account.define("contacts", score="number")
    account.write("contacts", 1, score="1.50")
    account.write("contacts", 2, score="7")
    pulled.run()
    account.define("contacts", score="string")
    account.write("contacts", 2, score="seven")
    assert pulled.run().refused == 0
    found = {number: row["score"] for number, row in pulled.rows().items()}
    assert (Decimal(found[1]), found[2]) == (Decimal("1.5"), "seven")


def test_a_text_that_becomes_a_number_property_keeps_all_its_values(account: HubspotAccount, pulled: Pulled) -> None:
    account.define("contacts", score="string")
    account.write("contacts", 1, score="1.50")
    pulled.run()
    account.define("contacts", score="number")
    account.write("contacts", 2, score="12345678901234567890.25")
    assert pulled.run().refused == 0
    found = {number: row["score"] for number, row in pulled.rows().items()}
    assert (Decimal(found[1]), Decimal(found[2])) == (Decimal("1.5"), Decimal("12345678901234567890.25"))


def test_a_deleted_property_that_nobody_named_stops_nothing(account: HubspotAccount, pulled: Pulled) -> None:
    account.define("contacts", city="string")
    account.write("contacts", 1, city="Oslo")
    pulled.run()
    del account.schema["contacts"]["city"]
    account.put(1, text="second")
    pulled.run()
    assert pulled.texts() == {1: "second"}
    assert "city" not in json.dumps([dict(asked.query) for asked in account.asked("/crm/objects")][-1])
