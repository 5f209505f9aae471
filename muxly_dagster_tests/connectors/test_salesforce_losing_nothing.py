"""Salesforce where it is hard to lose nothing: archived and erased records, pages that change, bulk jobs that outlive their pull."""

import datetime as dt
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.connectors.salesforce.rows import Batches, Records
from muxly_dagster.errors import ConfigurationError, RetryLater, SourceError
from muxly_dagster.testing.connectors import Pulled
from muxly_dagster_tests.http.server import Asked
from muxly_dagster_tests.peers.salesforce import Organisation

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


@pytest.fixture
def organisation() -> Iterator[Organisation]:
    with Organisation() as organisation:
        yield organisation


@pytest.fixture
def pulled(organisation: Organisation, tmp_path: Path) -> Pulled:
    return Pulled(organisation, tmp_path, "crm.Account")


def after_page(organisation: Organisation, number: int, deed: Callable[[], Any]) -> None:
    """Have something happen once, after so many answers with records."""
    answer, pages = organisation.answer, [0]

    def answered(asked: Asked) -> bytes:
        reply = answer(asked)
        pages[0] += organisation.is_for_records(asked)
        if pages[0] == number:
            pages[0] += 1
            deed()
        return reply

    organisation.answer = answered  # type: ignore[method-assign]


# ---- records that a plain query does not show ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["rest", "bulk"])
def test_archived_records_come_with_the_first_pull(organisation: Organisation, pulled: Pulled, mode: str) -> None:
    organisation.pull, organisation.looks = {"stream": "Account", "mode": mode}, 0
    organisation.tables["Account"].types["IsArchived"] = "boolean"
    organisation.put(1, 2, 3, text="first")
    organisation.write("Account", 2, IsArchived=True)
    organisation.delete(3)
    pulled.run()
    assert set(pulled.texts()) == {1, 2}


@pytest.mark.parametrize("mode", ["rest", "bulk"])
def test_records_that_are_erased_past_the_bin_are_deleted(organisation: Organisation, pulled: Pulled, mode: str) -> None:
    organisation.pull, organisation.looks = {"stream": "Account", "mode": mode}, 0
    organisation.put(*range(1, 6), text="first")
    pulled.run()
    organisation.erase(2)
    organisation.delete(3)
    organisation.delete(4)
    organisation.write("Account", 4)  # taken out of the bin again
    assert pulled.run().changed == 3
    assert set(pulled.texts()) == {1, 4, 5}
    assert pulled.run().changed == 0


def test_a_record_that_was_restored_and_archived_is_not_deleted(organisation: Organisation, pulled: Pulled) -> None:
    organisation.put(1, 2, text="first")
    pulled.run()
    organisation.delete(1)
    organisation.tables["Account"].records[f"001{1:015}"].update(
        IsDeleted=False, IsArchived=True, SystemModstamp=organisation.now - 2 * HOUR
    )
    pulled.run()
    assert set(pulled.texts()) == {1, 2}


def test_a_log_of_deletions_that_cannot_be_read_is_told_and_stops_nothing(
    organisation: Organisation, pulled: Pulled, caplog: pytest.LogCaptureFixture
) -> None:
    organisation.put(1, 2, text="first")
    pulled.run()
    organisation.put(3, text="new")
    organisation.delete(1)
    log = organisation._log
    organisation._log = lambda *_: log("Account", organisation.now, organisation.now)  # type: ignore[method-assign]
    pulled.run()
    assert set(pulled.texts()) == {2, 3}
    assert "INVALID_REPLICATION_DATE" in caplog.text and "--from-start" in caplog.text


@pytest.mark.parametrize("why", ["pause", "fields"])
@pytest.mark.parametrize("mode", ["rest", "bulk"])
def test_everything_read_again_tells_what_was_deleted_although_it_broke_off(
    organisation: Organisation, pulled: Pulled, mode: str, why: str
) -> None:
    organisation.pull, organisation.looks = {"stream": "Account", "mode": mode}, 0
    organisation.put(*range(1, 10), text="first")
    pulled.run()
    organisation.erase(2, logged=False)
    organisation.now += 20 * DAY if why == "pause" else HOUR
    organisation.pull = {**organisation.pull, **({"fields": ["Name"]} if why == "fields" else {})}
    organisation.break_after(2 if mode == "rest" else 3)
    with pytest.raises(SourceError):
        pulled.run()
    organisation.mend()
    pulled.run()
    assert set(pulled.texts()) == set(range(1, 10)) - {2}
    assert organisation.started == (0 if mode == "rest" else 2), "the second run goes on with the first one's job"


# ---- pages ---------------------------------------------------------------------------------------------------------------


def test_a_record_that_changes_while_pages_are_read_does_not_push_the_cursor_past_others(
    organisation: Organisation, pulled: Pulled
) -> None:
    organisation.put(1, text="first")
    pulled.run()
    for number in range(2, 14):
        organisation.now += HOUR
        organisation.put(number, text="second")
    organisation.now += HOUR
    after_page(organisation, 1, lambda: organisation.put(6, text="third"))
    organisation.break_after(2)
    with pytest.raises(SourceError):
        pulled.run()
    organisation.mend()
    pulled.run()
    assert pulled.texts() == {1: "first", **dict.fromkeys(range(2, 14), "second"), 6: "third"}


def test_records_of_one_time_on_both_sides_of_a_page(organisation: Organisation, pulled: Pulled) -> None:
    organisation.put(1, text="first")
    pulled.run()
    organisation.settings = {"overlap": "1s"}
    organisation.now += HOUR
    for number in range(2, 12):
        organisation.write_now("Account", number, Name="second")
    organisation.now += HOUR
    organisation.break_after(2)
    with pytest.raises(SourceError):
        pulled.run()
    organisation.mend()
    pulled.run()
    assert set(pulled.texts()) == set(range(1, 12))


def test_a_token_that_runs_out_between_two_pages(organisation: Organisation, pulled: Pulled) -> None:
    organisation.put(*range(1, 10), text="first")
    after_page(organisation, 2, lambda: organisation.fail_once(401))
    assert pulled.run().changed == 9


def test_an_allowance_that_is_used_up_between_two_pages_keeps_what_was_read(organisation: Organisation, pulled: Pulled) -> None:
    organisation.put(*range(1, 10), text="first")
    after_page(organisation, 2, lambda: setattr(organisation, "error", (403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")))
    with pytest.raises(RetryLater, match="last 24 hours"):
        pulled.run()
    assert len(pulled.rows()) == 6
    organisation.error = None
    pulled.run()
    assert len(pulled.rows()) == len(pulled.ops()) == 9


# ---- bulk jobs -----------------------------------------------------------------------------------------------------------


def test_the_first_job_of_all_is_gone_on_with(organisation: Organisation, pulled: Pulled) -> None:
    organisation.put(1, 2, text="first")
    organisation.pull, organisation.settings = {"stream": "Account", "mode": "bulk"}, {"bulk_timeout": "1s"}
    organisation.looks = 1_000
    with pytest.raises(RetryLater, match="still under way"):
        pulled.run()
    (job,) = organisation.jobs.values()
    job.looks = 0
    pulled.run()
    assert (organisation.started, set(pulled.texts())) == (1, {1, 2})


@pytest.mark.parametrize("header_once", [True, False])
def test_a_job_whose_fields_are_not_those_of_the_object_any_more_starts_anew(
    organisation: Organisation, pulled: Pulled, header_once: bool
) -> None:
    organisation.pull, organisation.looks, organisation.header_once = {"stream": "Account", "mode": "bulk"}, 0, header_once
    for number in range(1, 10):
        organisation.write("Account", number, Name="first", BillingCity="Bonn", Zip__c="53111")
    organisation.break_after(3)
    with pytest.raises(SourceError):
        pulled.run()
    organisation.mend()
    types = organisation.tables["Account"].types
    types["Zip__c"] = types.pop("BillingCity")
    pulled.run()
    assert {(row["Name"], row["Zip__c"]) for row in pulled.rows().values()} == {("first", "53111")}
    assert (len(pulled.rows()), organisation.started) == (9, 2)


def test_a_locator_that_is_not_taken_any_more_starts_anew(organisation: Organisation, pulled: Pulled) -> None:
    organisation.pull, organisation.looks = {"stream": "Account", "mode": "bulk"}, 0
    organisation.put(*range(1, 10), text="first")
    organisation.break_after(3)
    with pytest.raises(SourceError):
        pulled.run()
    organisation.mend()
    answer = organisation.answer

    def forgetful(asked: Asked) -> bytes:
        if "locator" in dict(asked.query) and f"750{0:015}" in asked.path:
            return organisation._refusal(400, "INVALID_LOCATOR", "the locator is no longer valid")
        return answer(asked)

    organisation.answer = forgetful  # type: ignore[method-assign]
    pulled.run()
    assert len(pulled.rows()) == len(pulled.ops()) == 9


def test_a_piece_of_a_result_that_lacks_records_is_not_taken(organisation: Organisation, pulled: Pulled) -> None:
    organisation.pull, organisation.looks = {"stream": "Account", "mode": "bulk"}, 0
    organisation.put(1, 2, 3, text="first")
    answer = organisation.answer

    def torn(asked: Asked) -> bytes:
        return answer(asked).replace(b"Sforce-NumberOfRecords: 3", b"Sforce-NumberOfRecords: 4")

    organisation.answer = torn  # type: ignore[method-assign]
    with pytest.raises(SourceError, match="has 3 records and should have 4"):
        pulled.run()
    organisation.answer = answer  # type: ignore[method-assign]
    pulled.run()
    assert len(pulled.rows()) == 3


def test_too_many_fields_of_an_object_that_bulk_does_not_know_are_told(organisation: Organisation, pulled: Pulled) -> None:
    organisation.tables["Account"].types |= {f"A_rather_long_name_of_a_field_{n}__c": "string" for n in range(500)}
    organisation.tables["Account"].bulk = False
    organisation.pull = {"stream": "Account"}
    with pytest.raises(ConfigurationError, match="more fields than one REST query") as told:
        pulled.run()
    assert "name fewer `fields`" in told.value.problems[0].do


def test_numbers_in_powers_of_ten_are_exact() -> None:
    texts = [b'{"Id":"1","Sum":"1.23456789012345E10","Count":"7"}', b'{"Id":"2","Sum":"0.1"}']
    batch = next(Batches({"Id": "string", "Sum": "decimal", "Count": "integer"}, None).of([Records(texts)]))
    assert batch.rows["Sum"].to_pylist() == [Decimal("12345678901.2345"), Decimal("0.1")]
    assert batch.rows["Count"].to_pylist() == [7, None]
