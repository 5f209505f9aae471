"""What a pull of HubSpot's records brings: all of them, what changed, what is gone, and with them types, histories and associations."""

import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.connectors.hubspot.objects import merged_away
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.lake import Lake
from muxly_dagster.testing import Pulled
from muxly_dagster_tests.peers.hubspot import HubspotAccount


@pytest.fixture
def account() -> Iterator[HubspotAccount]:
    with HubspotAccount() as account:
        yield account


@pytest.fixture
def pulled(account: HubspotAccount, tmp_path: Path) -> Pulled:
    return Pulled(account, tmp_path)


def searches(account: HubspotAccount) -> list[dict[str, str]]:
    """The filters of every search: property to value."""
    bodies = [json.loads(asked.body) for asked in account.asked("/search")]
    return [{f["propertyName"]: f["value"] for f in body["filterGroups"][0]["filters"]} for body in bodies]


# ---- what changed -------------------------------------------------------------------------------------------------------


def test_more_than_ten_thousand_records_with_one_modified_date_all_arrive(account: HubspotAccount, pulled: Pulled) -> None:
    account.put(1)
    pulled.run()
    account.now += dt.timedelta(hours=1)
    for number in range(2, 10_500):
        account.write_now("contacts", number, firstname="imported")
    assert pulled.run().changed == 10_498
    assert len(pulled.rows()) == 10_499
    assert all("after" not in json.loads(asked.body) for asked in account.asked("/search"))


def test_a_pull_that_broke_off_within_a_stretch_of_time_goes_on_behind_the_last_id(account: HubspotAccount, pulled: Pulled) -> None:
    account.put(1)
    pulled.run()
    account.page = 5
    for number in range(2, 23):
        account.write("contacts", number, firstname="second")
    account.break_after(5)
    with pytest.raises(MuxlyError, match="out of order"):
        pulled.run()
    account.mend()
    stored = len(pulled.rows())
    assert 1 < stored < 22
    account.write("contacts", 3, firstname="third")
    seen = len(searches(account))
    pulled.run()
    assert searches(account)[seen]["hs_object_id"] == str(stored)
    assert pulled.texts() == {1: "", 2: "second", 3: "third", **dict.fromkeys(range(4, 23), "second")}


def test_a_first_pull_that_broke_off_goes_on_with_the_lists_own_token(account: HubspotAccount, pulled: Pulled) -> None:
    account.page = 4
    account.put(*range(1, 13), text="first")
    account.break_after(2)
    with pytest.raises(MuxlyError):
        pulled.run()
    account.mend()
    account.put(2, text="changed meanwhile")
    pulled.run()
    listed = [dict(asked.query).get("after") for asked in account.asked("/contacts") if "lastmodifieddate" in asked.target]
    assert listed.count(None) == 1
    assert pulled.texts() == {**dict.fromkeys(range(1, 13), "first"), 2: "changed meanwhile"}


def test_what_the_search_does_not_know_yet_comes_with_the_next_pull(account: HubspotAccount, pulled: Pulled) -> None:
    account.settings = {"lag": "2m"}
    account.index_lag = dt.timedelta(seconds=90)
    account.put(1, text="first")
    pulled.run()
    account.now += dt.timedelta(hours=1)
    account.put(1, text="second")
    assert pulled.run().changed == 0
    account.now += dt.timedelta(minutes=3)
    assert pulled.run().changed == 1
    assert pulled.texts() == {1: "second"}


def test_a_change_during_the_first_pull_is_not_lost(account: HubspotAccount, pulled: Pulled) -> None:
    account.settings = {"lag": "2m"}
    account.put(1, 2, text="first")
    pulled.run()
    account.put(1, text="a second later")
    account.now += dt.timedelta(minutes=5)
    pulled.run()
    assert pulled.texts() == {1: "a second later", 2: "first"}


def test_a_longer_lag_than_before_waits_and_loses_nothing(account: HubspotAccount, pulled: Pulled) -> None:
    account.put(1, text="first")
    pulled.run()
    account.put(1, text="second")
    account.settings = {"lag": "1h"}
    assert pulled.run().changed == 0
    account.now += dt.timedelta(hours=2)
    assert pulled.run().changed == 1


def test_other_objects_have_another_modified_date(account: HubspotAccount, pulled: Pulled) -> None:
    account.define("deals", dealname="string")
    account.pull = {"stream": "deals"}
    account.write("deals", 1, dealname="first")
    pulled.run()
    account.write("deals", 1, dealname="second")
    pulled.run()
    assert [row["dealname"] for row in pulled.rows().values()] == ["second"]
    assert "hs_lastmodifieddate" in searches(account)[-1]


def test_asking_for_more_reads_everything_again_and_stores_only_what_is_new(account: HubspotAccount, pulled: Pulled) -> None:
    account.define("contacts", city="string")
    account.write("contacts", 1, firstname="a", city="Berlin")
    account.write("contacts", 2, firstname="b")
    account.pull = {"stream": "contacts", "properties": ["firstname"]}
    pulled.run()
    assert "city" not in pulled.rows()[1]
    account.pull = {"stream": "contacts", "properties": ["firstname", "city"]}
    assert pulled.run().changed == 1
    assert pulled.rows()[1]["city"] == "Berlin"


# ---- what is gone -------------------------------------------------------------------------------------------------------


def test_archived_records_are_deleted_and_restored_ones_come_back(account: HubspotAccount, pulled: Pulled) -> None:
    account.page = 2
    account.put(*range(1, 8), text="first")
    pulled.run()
    for number in (2, 3, 5, 7):
        account.delete(number)
    assert pulled.run().changed == 4
    assert set(pulled.texts()) == {1, 4, 6}
    account.put(3, text="restored")
    pulled.run()
    assert pulled.texts()[3] == "restored"


def test_the_archive_is_looked_at_as_often_as_told(account: HubspotAccount, pulled: Pulled) -> None:
    account.pull = {"stream": "contacts", "archived_every": "6h"}
    account.put(1, 2, text="first")
    pulled.run()
    account.delete(2)
    account.now += dt.timedelta(hours=5)
    assert pulled.run().changed == 0
    account.now += dt.timedelta(hours=1)
    assert pulled.run().changed == 1
    account.pull = {"stream": "contacts", "archived_every": "never"}
    account.delete(1)
    account.now += dt.timedelta(days=9)
    assert pulled.run().changed == 0


def test_a_merge_deletes_the_record_that_was_taken_in(account: HubspotAccount, pulled: Pulled) -> None:
    account.put(1, 2, 3, text="first")
    pulled.run()
    account.merge("contacts", 1, 2)
    account.merge("contacts", 1, 3)
    outcome = pulled.run()
    assert set(pulled.texts()) == {1}
    assert outcome.metadata["deletes"] == 2
    assert pulled.run().changed == 0


def test_a_record_never_deletes_itself_or_one_that_came_with_it() -> None:
    import pyarrow as pa

    rows = pa.table({"id": ["7", "8"], "hs_merged_object_ids": ["5; 7;8;", None]})
    gone = merged_away(rows)
    assert gone is not None and gone.to_pydict() == {"id": ["5"]}
    assert merged_away(pa.table({"id": ["7"], "hs_merged_object_ids": ["7"]})) is None


def test_reading_from_the_start_deletes_what_even_the_archive_has_forgotten(account: HubspotAccount, pulled: Pulled) -> None:
    account.put(1, 2, 3, text="first")
    pulled.run()
    del account.objects["contacts"][2]
    assert pulled.run().changed == 0
    assert pulled.run(from_start=True).changed == 1
    assert set(pulled.texts()) == {1, 3}


# ---- properties ---------------------------------------------------------------------------------------------------------


def test_values_come_in_the_types_of_the_schema(account: HubspotAccount, pulled: Pulled) -> None:
    types = {"amount": "number", "big": "number", "closedate": "datetime", "birthday": "date", "vip": "bool", "stage": "enumeration"}
    account.define("deals", **types)
    account.pull = {"stream": "deals"}
    account.write("deals", 1, amount="1234.50", closedate="2026-03-01T10:00:00.123Z", birthday="1990-02-03", vip="true", stage="a;b")
    account.write("deals", 2, amount="", big="12345678901234567890.123456789012", closedate="", birthday="", vip="false")
    assert pulled.run().refused == 0
    first, second = pulled.rows()[1], pulled.rows()[2]
    assert first["amount"] == Decimal("1234.50")
    assert first["closedate"] == dt.datetime(2026, 3, 1, 10, 0, 0, 123000, dt.UTC)
    assert (first["birthday"], first["vip"], first["stage"], first["hs_object_id"]) == (dt.date(1990, 2, 3), True, "a;b", 1)
    assert second["big"] == Decimal("12345678901234567890.123456789012")
    assert (second["amount"], second["closedate"], second["birthday"], second["vip"]) == (None, None, None, False)
    assert first["createdAt"] == dt.datetime(2026, 6, 1, 12, 0, 1, tzinfo=dt.UTC)


def test_times_that_come_as_milliseconds_are_times_too(account: HubspotAccount, pulled: Pulled) -> None:
    account.define("deals", closedate="datetime", birthday="date", amount="number")
    account.pull = {"stream": "deals"}
    account.write("deals", 1, closedate="1767225600123", birthday="1767225600000")
    account.write("deals", 2, closedate="2026-01-01T00:00:00Z", birthday="2026-01-01")
    assert pulled.run().refused == 0
    first, second = pulled.rows()[1], pulled.rows()[2]
    assert first["closedate"] == dt.datetime(2026, 1, 1, 0, 0, 0, 123000, dt.UTC)
    assert first["birthday"] == second["birthday"] == dt.date(2026, 1, 1)


def test_a_value_that_is_none_costs_its_own_record_only(account: HubspotAccount, pulled: Pulled) -> None:
    account.define("deals", amount="number", closedate="datetime")
    account.pull = {"stream": "deals"}
    account.write("deals", 1, amount="about ten", closedate="1767225600123")
    account.write("deals", 2, amount="10")
    assert pulled.run().refused == 1
    assert [row["amount"] for row in pulled.rows().values()] == [Decimal(10)]


def test_hidden_properties_are_read_only_when_they_are_named(account: HubspotAccount, pulled: Pulled) -> None:
    account.define("contacts", internal="string")
    account.hidden = {"internal", "hs_merged_object_ids"}
    account.write("contacts", 1, internal="x", firstname="a")
    pulled.run()
    assert "internal" not in pulled.rows()[1]
    account.pull = {"stream": "contacts", "properties": ["internal"]}
    pulled.run()
    assert pulled.rows()[1]["internal"] == "x"


def test_more_properties_than_an_address_can_hold_are_read_all_the_same(account: HubspotAccount, pulled: Pulled) -> None:
    names = [f"a_rather_long_name_of_a_property_{n}" for n in range(400)]
    account.define("contacts", **dict.fromkeys(names, "string"))
    account.page = 100
    for number in range(1, 251):
        account.write("contacts", number, firstname="x", **{names[number]: "here"})
    assert pulled.run().changed == 250
    assert pulled.rows()[200][names[200]] == "here"
    assert pulled.run().changed == 0


@pytest.mark.parametrize("setting", ["properties", "history"])
def test_an_unknown_property_is_told_with_what_was_meant(account: HubspotAccount, pulled: Pulled, setting: str) -> None:
    account.pull = {"stream": "contacts", setting: ["fristname"]}
    with pytest.raises(ConfigurationError, match="no property 'fristname'.*did you mean firstname"):
        pulled.run()
    connector = account.connector()
    told = connector.check_pull(connector.Pull.model_validate(account.pull))
    assert told == ("there is no property 'fristname'; did you mean firstname?",)


# ---- histories and associations -----------------------------------------------------------------------------------------


def test_a_history_holds_every_value_a_property_had(account: HubspotAccount, pulled: Pulled) -> None:
    account.pull = {"stream": "contacts", "history": ["firstname"]}
    account.put(*range(1, 121), text="first")
    account.put(1, text="second")
    assert pulled.run().changed == 120
    history = json.loads(pulled.rows()[1]["properties_with_history"])
    assert [value["value"] for value in history["firstname"]] == ["second", "first"]
    account.put(1, text="third")
    pulled.run()
    history = json.loads(pulled.rows()[1]["properties_with_history"])
    assert [value["value"] for value in history["firstname"]] == ["third", "second", "first"]


def test_associations_are_read_a_thousand_at_a_time_with_their_labels(account: HubspotAccount, pulled: Pulled) -> None:
    account.pull = {"stream": "contacts", "associations": ["companies", "deals"]}
    account.associations_page = 2
    account.put(*range(1, 2_501), text="x")
    account.associate("contacts", 1, "companies", 20, "Primary", "Billing")
    account.associate("contacts", 1, "companies", 9)
    account.associate("contacts", 1, "companies", 100)
    account.associate("contacts", 2_500, "deals", 5, "Decision maker")
    pulled.run()
    rows = pulled.rows()
    companies = [{"id": "9", "labels": []}, {"id": "20", "labels": ["Billing", "Primary"]}, {"id": "100", "labels": []}]
    assert json.loads(rows[1]["associations_companies"]) == companies
    assert json.loads(rows[2_500]["associations_deals"]) == [{"id": "5", "labels": ["Decision maker"]}]
    assert rows[3]["associations_companies"] == "[]"
    sizes = [
        len(json.loads(asked.body)["inputs"]) for asked in account.asked("/crm/associations/") if asked.path.endswith("deals/batch/read")
    ]
    assert sum(sizes) == 2_500 and max(sizes) == 1_000
    assert pulled.run().changed == 0


def test_nested_columns_say_that_they_are_json(account: HubspotAccount, pulled: Pulled) -> None:
    from muxly_dagster.records import is_json

    account.pull = {"stream": "contacts", "associations": ["deals"], "history": ["firstname"]}
    account.put(1, text="x")
    pulled.run()
    table = Lake(str(pulled.folder / "lake")).table(pulled.name)
    assert table is not None
    schema: Any = table.current().schema
    assert all(is_json(schema.field(name)) for name in ("associations_deals", "properties_with_history"))
