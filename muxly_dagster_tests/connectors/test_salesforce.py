"""Salesforce keeps a connector's promises by REST and in bulk, with exact types, deletions, and jobs that a later run goes on with."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster.connectors.salesforce.bulk import read_csv
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError, SourceError
from muxly_dagster.testing.connectors import ConnectorContract, Pulled
from muxly_dagster_tests.peers.salesforce import ACCOUNT, Organisation, Table


@pytest.fixture
def organisation() -> Iterator[Organisation]:
    with Organisation() as organisation:
        yield organisation


@pytest.fixture
def pulled(organisation: Organisation, tmp_path: Path) -> Pulled:
    return Pulled(organisation, tmp_path, "crm.Account")


class TestRest(ConnectorContract):
    refreshes = True

    @pytest.fixture
    def provider(self, organisation: Organisation) -> Organisation:
        return organisation


class TestBulk(ConnectorContract):
    refreshes = True

    @pytest.fixture
    def provider(self) -> Iterator[Organisation]:
        with Organisation(mode="bulk") as organisation:
            organisation.looks = 0
            yield organisation


# ---- REST --------------------------------------------------------------------------------------------------------------


def test_the_first_pull_asks_in_the_order_of_ids_and_later_ones_by_time(organisation: Organisation, pulled: Pulled) -> None:
    organisation.put(1, 2, text="first")
    pulled.run()
    organisation.now += dt.timedelta(hours=1)
    organisation.put(2, text="second")
    pulled.run()
    first, second = organisation.queries()
    assert first.endswith("FROM Account ORDER BY Id")
    assert second.endswith("FROM Account WHERE SystemModstamp >= 2026-06-01T11:50:02Z ORDER BY SystemModstamp")
    assert pulled.texts() == {1: "first", 2: "second"}


def test_a_first_pull_that_broke_off_goes_on_behind_the_last_id(organisation: Organisation, pulled: Pulled) -> None:
    organisation.put(*range(1, 10), text="first")
    organisation.break_after(2)
    with pytest.raises(SourceError):
        pulled.run()
    organisation.mend()
    organisation.put(2, text="changed meanwhile")
    pulled.run()
    assert "WHERE Id > '001000000000000006' ORDER BY Id" in organisation.queries()[-1]
    pulled.run()
    assert pulled.texts() == {**dict.fromkeys(range(1, 10), "first"), 2: "changed meanwhile"}


def test_news_that_broke_off_go_on_at_the_last_time(organisation: Organisation, pulled: Pulled) -> None:
    organisation.put(1, text="first")
    pulled.run()
    for number in range(2, 12):
        organisation.now += dt.timedelta(hours=1)
        organisation.put(number, text="second")
    organisation.break_after(2)
    with pytest.raises(SourceError):
        pulled.run()
    organisation.mend()
    assert len(pulled.rows()) == 6
    pulled.run()
    assert len(pulled.rows()) == 11
    assert "SystemModstamp >= 2026-06-01T16:50:06Z" in organisation.queries()[-1]


def test_a_record_of_a_long_transaction_is_not_passed_over(organisation: Organisation, pulled: Pulled) -> None:
    organisation.put(1, text="first")
    late = organisation.now
    organisation.now += dt.timedelta(minutes=5)
    pulled.run()
    organisation.write_now("Account", 2, Name="seen late")
    organisation.tables["Account"].records[f"001{2:015}"]["SystemModstamp"] = late
    pulled.run()
    assert pulled.texts() == {1: "first", 2: "seen late"}


def test_a_pause_longer_than_the_recycle_bin_reads_everything_again(organisation: Organisation, pulled: Pulled) -> None:
    organisation.put(1, 2, 3, text="first")
    pulled.run()
    organisation.delete(2)
    organisation.purge(2)
    organisation.now += dt.timedelta(days=20)
    assert pulled.run().changed == 1
    assert set(pulled.texts()) == {1, 3}


def test_what_was_taken_out_of_the_bin_comes_back(organisation: Organisation, pulled: Pulled) -> None:
    organisation.put(1, 2, text="first")
    pulled.run()
    organisation.delete(2)
    pulled.run()
    assert set(pulled.texts()) == {1}
    organisation.write("Account", 2)
    pulled.run()
    assert pulled.texts() == {1: "first", 2: "first"}


def test_values_come_in_the_described_types(organisation: Organisation, pulled: Pulled) -> None:
    fields: dict[str, Any] = {"AnnualRevenue": 12345678901.25, "NumberOfEmployees": 7, "IsPriority__c": True, "Founded__c": "1999-12-31"}
    organisation.write("Account", 1, Name="007", BillingCity="Köln", Rank__c=1.5, **fields)
    for mode in ("rest", "bulk"):
        organisation.pull = {"stream": "Account", "mode": mode}
        pulled.run(from_start=True)
        row = pulled.rows()[1]
        assert (row["Name"], row["AnnualRevenue"], row["NumberOfEmployees"]) == ("007", Decimal("12345678901.25"), 7)
        assert (row["IsPriority__c"], row["Founded__c"], row["BillingCity"]) == (True, dt.date(1999, 12, 31), "Köln")
        assert row["SystemModstamp"] == organisation.now
        assert not {"attributes", "IsDeleted", "BillingAddress", "Photo__c", "Rank__c"} & set(row)
    assert len(pulled.ops()) == 1, "by REST and in bulk, the same record is the same"


def test_named_fields_and_formulas(organisation: Organisation, pulled: Pulled) -> None:
    organisation.write("Account", 1, Name="a", Rank__c=1.5, BillingCity="Bonn")
    organisation.pull = {"stream": "Account", "mode": "rest", "fields": ["name", "Rank__c"]}
    pulled.run()
    row = {name: value for name, value in pulled.rows()[1].items() if not name.startswith("_")}
    assert row == {"Id": f"001{1:015}", "Name": "a", "Rank__c": Decimal("1.5"), "SystemModstamp": organisation.now}
    organisation.pull = {"stream": "Account", "mode": "rest", "formulas": True}
    pulled.run()
    assert pulled.rows()[1]["BillingCity"] == "Bonn"


def test_a_pull_may_write_an_objects_name_in_small_letters(organisation: Organisation, pulled: Pulled) -> None:
    organisation.put(1, text="first")
    organisation.pull = {"stream": "account"}
    pulled.run()
    assert pulled.texts() == {1: "first"}
    assert organisation.queries()[-1].endswith("FROM Account ORDER BY Id")


def test_an_object_without_times_is_read_whole_every_time(organisation: Organisation, tmp_path: Path) -> None:
    organisation.tables["Tag__c"] = Table({"Id": "id", "Name": "string"})
    organisation.write("Tag__c", 1, Name="a")
    organisation.write("Tag__c", 2, Name="b")
    organisation.pull = {"stream": "Tag__c", "mode": "rest"}
    place = Pulled(organisation, tmp_path, "crm.Tag__c")
    place.run()
    del organisation.tables["Tag__c"].records[f"001{2:015}"]
    assert place.run().changed == 1
    assert set(place.rows()) == {1}


# ---- bulk --------------------------------------------------------------------------------------------------------------


def test_many_records_are_read_in_bulk_and_few_by_rest(organisation: Organisation, pulled: Pulled) -> None:
    organisation.pull, organisation.settings = {"stream": "Account"}, {"bulk_from": 4}
    organisation.put(*range(1, 6), text="first")
    organisation.now += dt.timedelta(hours=1)
    pulled.run()
    assert organisation.deleted_jobs == [f"750{0:015}"], "the result is thrown away when it was read"
    organisation.now += dt.timedelta(days=1)
    organisation.put(1, text="second")
    organisation.delete(2)
    pulled.run()
    assert len(organisation.deleted_jobs) == 1
    organisation.now += dt.timedelta(days=1)
    organisation.put(*range(3, 20), text="third")
    organisation.delete(1)
    pulled.run()
    assert len(organisation.deleted_jobs) == 2
    assert pulled.texts() == dict.fromkeys(range(3, 20), "third")


def test_a_run_that_broke_off_goes_on_with_the_same_job(organisation: Organisation, pulled: Pulled) -> None:
    organisation.pull = {"stream": "Account", "mode": "bulk"}
    organisation.looks = 0
    organisation.put(*range(1, 10), text="first")
    organisation.break_after(4)
    with pytest.raises(SourceError):
        pulled.run()
    assert len(pulled.rows()) == 6
    organisation.mend()
    asked = len(organisation.asked)
    pulled.run()
    pieces = [dict(each.query).get("locator") for each in organisation.asked[asked:] if each.path.endswith("/results")]
    assert (pieces, len(organisation.deleted_jobs)) == (["6"], 1)
    assert len(pulled.ops()) == 9


def test_a_job_that_takes_too_long_is_gone_on_with(organisation: Organisation, pulled: Pulled) -> None:
    organisation.put(1, text="first")
    pulled.run()
    organisation.put(1, text="second")
    organisation.pull, organisation.settings = {"stream": "Account", "mode": "bulk"}, {"bulk_timeout": "1s"}
    organisation.looks = 1_000
    with pytest.raises(RetryLater, match="still under way"):
        pulled.run()
    (job,) = organisation.jobs.values()
    job.looks = 0
    organisation.put(2, text="later than the job")
    pulled.run()
    assert (pulled.texts(), organisation.started) == ({1: "second"}, 1)
    organisation.looks = 0
    pulled.run()
    assert pulled.texts() == {1: "second", 2: "later than the job"}


@pytest.mark.parametrize("state", ["gone", "Aborted", "Failed"])
def test_a_job_that_is_gone_starts_anew(organisation: Organisation, pulled: Pulled, state: str) -> None:
    organisation.pull = {"stream": "Account", "mode": "bulk"}
    organisation.looks = 0
    organisation.put(*range(1, 8), text="first")
    organisation.break_after(3)
    with pytest.raises(SourceError):
        pulled.run()
    organisation.mend()
    if state == "gone":
        organisation.jobs.clear()
    else:
        organisation.jobs[f"750{0:015}"].state = state
    organisation.put(8, text="first")
    pulled.run()
    assert len(pulled.ops()) == 8


def test_a_job_that_fails_says_why(organisation: Organisation, pulled: Pulled) -> None:
    organisation.pull = {"stream": "Account", "mode": "bulk"}
    organisation.put(1)
    answer = organisation.answer

    def failing(asked: Any) -> bytes:
        for job in organisation.jobs.values():
            job.state = "Failed"
        return answer(asked)

    organisation.answer = failing  # type: ignore[method-assign]
    with pytest.raises(SourceError, match="FIELD: too much"):
        pulled.run()


def test_an_object_that_bulk_does_not_know_is_read_by_rest(organisation: Organisation, pulled: Pulled) -> None:
    organisation.tables["Account"].bulk = False
    organisation.pull, organisation.settings = {"stream": "Account"}, {"bulk_from": 0}
    organisation.put(1, 2, text="first")
    pulled.run()
    assert len(pulled.rows()) == 2
    organisation.pull = {"stream": "Account", "mode": "bulk"}
    with pytest.raises(SourceError, match="cannot be read in bulk"):
        pulled.run(from_start=True)


def test_more_fields_than_an_address_holds_are_read_in_bulk(organisation: Organisation, pulled: Pulled) -> None:
    organisation.tables["Account"].types |= {f"A_rather_long_name_of_a_field_{n}__c": "string" for n in range(500)}
    organisation.put(1, text="first")
    organisation.pull = {"stream": "Account"}
    pulled.run()
    assert len(organisation.deleted_jobs) == 1
    organisation.pull = {"stream": "Account", "mode": "rest"}
    with pytest.raises(ConfigurationError, match="more fields than one REST query"):
        pulled.run()


def test_results_are_read_with_line_breaks_quotes_and_no_header() -> None:
    names = ["Id", "Name", "Text__c"]
    body = b'"1","say ""hi""","two\nlines"\n"2","",""\n'
    rows = [{"Id": "1", "Name": 'say "hi"', "Text__c": "two\nlines"}, {"Id": "2"}]
    assert read_csv(b'"Id","Name","Text__c"\n' + body, names) == rows
    assert read_csv(body, names) == rows
    assert read_csv(b'"Text__c","Id","Name"\n"t","3","n"\n', names) == [{"Id": "3", "Name": "n", "Text__c": "t"}]
    assert read_csv(b'"Id","Name","Text__c"\n', names) == read_csv(b"", names) == []


# ---- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind", "told"),
    [
        (403, "REQUEST_LIMIT_EXCEEDED", RetryLater, "last 24 hours"),
        (403, "INSUFFICIENT_ACCESS", SignInError, "salesforce Account: the user is not allowed"),
        (403, "API_DISABLED_FOR_ORG", SignInError, "not allowed"),
        (400, "INVALID_FIELD", ConfigurationError, "INVALID_FIELD"),
        (400, "QUERY_TIMEOUT", SourceError, "takes too long"),
        (400, "INVALID_QUERY_LOCATOR", RetryLater, "result has gone"),
    ],
)
def test_refusals_say_what_to_do(
    organisation: Organisation, pulled: Pulled, status: int, code: str, kind: type[MuxlyError], told: str
) -> None:
    organisation.put(1)
    organisation.error = (status, code, "TotalRequests Limit exceeded.")
    with pytest.raises(kind, match=told):
        pulled.run()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"stream": "Acount"}, "did you mean Account"),
        ({"stream": "Account", "fields": ["Nmae"]}, "did you mean Name"),
        ({"stream": "Account", "fields": ["BillingAddress"]}, "name its parts"),
    ],
)
def test_unknown_names_are_told_with_what_was_meant(
    organisation: Organisation, pulled: Pulled, settings: dict[str, Any], told: str
) -> None:
    organisation.pull = settings
    with pytest.raises(ConfigurationError, match=told):
        pulled.run()
    connector = organisation.connector()
    assert told in connector.check_pull(connector.Pull.model_validate(settings))[0]


def test_names_that_no_object_can_have_are_refused_without_asking(organisation: Organisation) -> None:
    connector = organisation.connector()
    with pytest.raises(ConfigurationError, match="API name"):
        connector.stream(connector.Pull.model_validate({"stream": "Account WHERE Id"}))
    with pytest.raises(ConfigurationError, match="the key is `Id`"):
        connector.stream(connector.Pull.model_validate({"stream": "Account", "key": ["Name"]}))
    with pytest.raises(ValueError, match="no address"):
        organisation.connector(instance_url="acme")
    assert organisation.asked == []


# ---- what is known -----------------------------------------------------------------------------------------------------


def test_objects_are_discovered_and_resolved_into_their_types(organisation: Organisation) -> None:
    organisation.tables["Invoice__c"] = Table(dict(ACCOUNT))
    organisation.tables["Hidden"] = Table({"Id": "id"})
    connector = organisation.connector()
    names = {stream.name for stream in connector.streams()}
    assert "Invoice__c" in names and "Hidden" not in names
    stream = connector.resolve(connector.Pull.model_validate({"stream": "Invoice__c"}))
    assert stream.schema is not None and stream.deletes
    assert stream.schema.field("NumberOfEmployees").type == pa.int64()
    assert "BillingAddress" not in stream.schema.names


def test_the_account_and_its_allowances_are_known(organisation: Organisation) -> None:
    organisation.tables["Organization"].records["00D"] = {"Id": "00D1", "Name": "Acme", "OrganizationType": "Unlimited Edition"}
    found = organisation.connector().metadata()
    assert (found.account, found.details["Name"]) == ("00D1", "Acme")
    assert found.limits[0] == "15,000 requests in 24 hours, 14,982 left"
    assert organisation.connector().test_connection().what == "18 of 15,000 requests of 24 hours used"


# ---- actions -----------------------------------------------------------------------------------------------------------


def test_records_are_created_changed_upserted_and_deleted(organisation: Organisation) -> None:
    connector, records = organisation.connector(), organisation.tables["Account"].records
    organisation.tables["Account"].types["Ext__c"] = "string"
    made = connector.act("create_record", {"object": "Account", "fields": {"Name": "Acme"}})
    assert made["created"]
    assert connector.act("update_record", {"object": "Account", "id": made["id"], "fields": {"Name": "Acme 2"}}) == {
        **made,
        "created": False,
    }
    assert records[made["id"]]["Name"] == "Acme 2"
    upsert = {"object": "Account", "external_id_field": "Ext__c", "external_id": "a/7", "fields": {"Name": "new"}}
    first, second = (connector.act("upsert_record", upsert) for _ in range(2))
    assert (first["created"], second["created"], first["id"] == second["id"]) == (True, False, True)
    connector.act("delete_record", {"object": "Account", "id": made["id"]})
    assert records[made["id"]]["IsDeleted"]


@pytest.mark.parametrize(
    ("action", "inputs", "told"),
    [
        ("creat_record", {}, "did you mean create_record"),
        ("create_record", {"object": "Account"}, "fields: Field required"),
        ("update_record", {"object": "Account", "id": "../x", "fields": {}}, "id: String should match"),
        ("create_record", {"object": "Account", "fields": {"Nmae": 1}}, "No such column"),
    ],
)
def test_wrong_inputs_are_told(organisation: Organisation, action: str, inputs: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        organisation.connector().act(action, inputs)
