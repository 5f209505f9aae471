"""When BigQuery does not want to, or Muxly dies on the way: nothing is lost, nothing arrives twice, and every refusal says what to do."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as JobTimeout
from typing import Any

import pytest
from google.api_core import exceptions
from google.auth.exceptions import RefreshError, TransportError

from muxly_dagster.destinations.bigquery import Bigquery, loading, service
from muxly_dagster.destinations.bigquery.refusals import in_person
from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater, SignInError
from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.bigquery_lab import Cuts, Warehouse, impatient, warehouse
from muxly_dagster_tests.peers.bigquery import Cut
from muxly_dagster_tests.peers.bigquery_sql import Refused

_DELIVERS = """
import sys
from muxly_dagster.destinations.bigquery import Bigquery, loading, service
from muxly_dagster.testing import delivery
key = sys.stdin.read()
auth = {"kind": "service_account", "key": key}
made = Bigquery.model_validate(
    {"project": "lab", "dataset": "mart", "auth": auth, "location": "EU", "api_endpoint": sys.argv[1], "mode": sys.argv[2]}
)
made.deliver(delivery([{"id": 1}, {"id": 2}]))
"""


@pytest.fixture
def mart(monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    impatient(monkeypatch)
    with warehouse() as found:
        yield found


def _do(error: MuxlyError) -> str:
    return error.problems[0].do if isinstance(error, ConfigurationError) else error.do


# ---- dying on the way


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("mode", ["append", "mirror"])
def test_whatever_request_is_the_last_of_a_process_nothing_is_lost_and_nothing_twice(mart: Warehouse, mode: str, moment: str) -> None:
    spared, signed_in = 0, mart.destination(mode=mode)
    while True:
        destination = signed_in.model_copy(update={"table": f"t{spared}"})
        route = f"route_{spared}.warehouse"
        cuts = Cuts("/", moment, spared=spared)
        mart.bigquery.watch = cuts
        if not cuts_delivery(destination, route):
            break
        mart.bigquery.watch = None
        held = destination.position(route, "0b8e1f9c")
        assert held in (None, 2)
        assert [r["id"] for r in mart.rows(f"t{spared}")] == ([1, 2] if held else [])
        receipt = destination.deliver(delivery([{"id": 1}, {"id": 2}, {"id": 3}], delivery_id=route))
        assert receipt.detail["rows_written"] == (1 if held else 3)
        assert [r["id"] for r in mart.rows(f"t{spared}")] == [1, 2, 3]
        spared += 1
    assert spared > 8
    mart.bigquery.watch = None
    assert all(destination.position(f"route_{number}.warehouse", "0b8e1f9c") == 3 for number in (0, spared - 1))


def cuts_delivery(destination: Bigquery, route: str) -> bool:
    """Whether the delivery broke off."""
    try:
        destination.deliver(delivery([{"id": 1}, {"id": 2}], delivery_id=route))
    except RetryLater as error:
        assert "network" in error.do
        return True
    return False


@pytest.mark.parametrize(("mode", "path"), [("append", "/upload/"), ("mirror", "-0-2-0")])
def test_a_process_that_is_killed_leaves_a_delivery_that_is_finished_once(mart: Warehouse, mode: str, path: str) -> None:
    """Right after what counts was carried out; every other moment is in the test above, where the line is cut for good."""
    with subprocess.Popen([sys.executable, "-c", _DELIVERS, mart.bigquery.url, mode], stdin=subprocess.PIPE, text=True) as process:

        def kill(now: str, method: str, where: str) -> None:
            if now == "after" and path in where:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                raise Cut

        mart.bigquery.watch = kill
        assert process.stdin is not None
        process.stdin.write(mart.bigquery.key())
        process.stdin.close()
        assert process.wait() == -signal.SIGKILL
    mart.bigquery.watch = None
    destination = mart.destination(mode=mode)
    assert destination.position("big_deals.warehouse", "0b8e1f9c") == 2
    receipt = destination.deliver(delivery([{"id": 1}, {"id": 2}, {"id": 3}]))
    assert receipt.detail["rows_written"] == 1
    assert [r["id"] for r in mart.rows()] == [1, 2, 3]


def test_an_upload_that_arrives_after_its_process_was_taken_for_dead_loads_nothing(mart: Warehouse) -> None:
    destination = mart.destination(mode="append")
    mart.bigquery.watch = Cuts("/upload/", "before", times=1)
    with pytest.raises(RetryLater):
        destination.deliver(delivery([{"id": 1}]))
    (promised,) = [row["job"] for row in mart.table("_muxly_offsets").to_pylist()]
    assert destination.position("big_deals.warehouse", "0b8e1f9c") is None
    assert mart.bigquery.jobs[promised]["configuration"]["query"]["query"] == "SELECT 1"
    destination.deliver(delivery([{"id": 1}]))
    assert len(mart.rows()) == 1


def test_a_run_that_was_taken_for_dead_stops(mart: Warehouse) -> None:
    destination = mart.destination(mode="append")

    def meanwhile(moment: str, method: str, path: str) -> None:
        if path.startswith("/upload/") and moment == "before":
            mart.bigquery.watch = None
            assert mart.destination(mode="append").position("big_deals.warehouse", "0b8e1f9c") is None

    mart.bigquery.watch = meanwhile
    with pytest.raises(RetryLater, match="took this one for dead"):
        destination.deliver(delivery([{"id": 1}]))
    assert mart.rows() == []
    assert destination.deliver(delivery([{"id": 1}])).accepted == 1


@pytest.mark.parametrize("mode", ["append", "mirror"])
def test_another_run_that_delivers_meanwhile_is_seen(mart: Warehouse, mode: str) -> None:
    """Its stretch is longer, so its job has another id: the offset decides."""
    destination = mart.destination(mode=mode)
    destination.deliver(delivery([{"id": 1}]))
    at = "/upload/" if mode == "mirror" else "/tables/crm_deals"

    def meanwhile(moment: str, method: str, path: str) -> None:
        if at in path and moment == "before":
            mart.bigquery.watch = None
            mart.destination(mode=mode).deliver(delivery([{"id": 2}, {"id": 3}], after=1))

    mart.bigquery.watch = meanwhile
    if mode == "mirror":
        assert destination.deliver(delivery([{"id": 2}], after=1)).detail["repeated"]
    else:
        with pytest.raises(RetryLater, match="at this moment"):
            destination.deliver(delivery([{"id": 2}], after=1))
        assert destination.deliver(delivery([{"id": 2}], after=1)).detail["repeated"]
    assert [r["id"] for r in mart.rows()] == [1, 2, 3]
    assert destination.position("big_deals.warehouse", "0b8e1f9c") == 3


def test_in_a_single_region_jobs_are_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    with warehouse() as mart:
        mart.bigquery.location = "europe-north1"
        mart.bigquery.watch = Cuts("/upload/", "after", times=1)
        destination = mart.destination(mode="append")
        with pytest.raises(RetryLater):
            destination.deliver(delivery([{"id": 1}]))
        assert destination.position("big_deals.warehouse", "0b8e1f9c") == 1
        assert destination.deliver(delivery([{"id": 1}])).detail["repeated"]


def test_a_load_that_failed_is_tried_under_another_id(mart: Warehouse) -> None:
    destination = mart.destination(mode="append")
    destination.deliver(delivery([{"id": 1}]))

    def fail(moment: str, method: str, path: str) -> None:
        if path.startswith("/upload/"):
            mart.bigquery.watch = None
            mart.bigquery.jobs_fail.append("backendError")

    mart.bigquery.watch = fail
    with pytest.raises(RetryLater, match="as the test wants it"):
        destination.deliver(delivery([{"id": 2}], after=1))
    destination.deliver(delivery([{"id": 2}], after=1))
    assert [r["id"] for r in mart.rows()] == [1, 2]
    assert len({load["id"] for load in mart.loads()}) == 3


def test_a_merge_that_failed_is_tried_under_another_id(mart: Warehouse) -> None:
    destination = mart.destination()
    destination.deliver(delivery([{"id": 1}]))

    def fail(moment: str, method: str, path: str) -> None:
        if path.startswith("/upload/") and moment == "after":
            mart.bigquery.watch = None
            mart.bigquery.jobs_fail.append("rateLimitExceeded")

    mart.bigquery.watch = fail
    with pytest.raises(RetryLater, match="as the test wants it"):
        destination.deliver(delivery([{"id": 2}], after=1))
    assert mart.stages() == []
    destination.deliver(delivery([{"id": 2}], after=1))
    assert [r["id"] for r in mart.rows()] == [1, 2]


@pytest.mark.parametrize("statement", ["MERGE", "INSERT", "COMMIT", "DELETE"])
def test_a_transaction_that_breaks_off_leaves_neither_rows_nor_offset(mart: Warehouse, statement: str) -> None:
    mart.put([{"name": "id", "type": "INTEGER"}], [{"id": 77}])
    destination = mart.destination(mode="replace")
    mart.bigquery.breaks.append(statement)
    with pytest.raises(RetryLater, match=f"during execution of {statement}"):
        destination.deliver(delivery([{"id": 1}]))
    mart.bigquery.breaks.clear()
    assert mart.rows() == [{"id": 77}]
    assert destination.position("big_deals.warehouse", "0b8e1f9c") is None
    destination.deliver(delivery([{"id": 1}]))
    assert mart.rows() == [{"id": 1}]


def test_different_deliveries_into_one_table_do_not_get_in_each_others_way(mart: Warehouse) -> None:
    def deliver(n: int) -> None:
        rows = [{"id": i, "from": n} for i in range(20)]
        mart.destination().deliver(delivery(rows, delivery_id=f"route_{n}.warehouse"))

    mart.destination().deliver(delivery([{"id": 0, "from": 9}]))
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(deliver, range(3)))
    assert len(mart.rows()) == 20


# ---- what BigQuery refuses


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_a_batch_with_a_record_that_does_not_fit_is_refused_and_nothing_of_it_kept(mart: Warehouse, mode: str) -> None:
    mart.put([{"name": "id", "type": "INTEGER"}, {"name": "name", "type": "STRING", "mode": "REQUIRED"}])
    destination = mart.destination(mode=mode, record_columns=[])
    with pytest.raises(RecordRefused, match="name is REQUIRED"):
        destination.deliver(delivery([{"id": 1, "name": "a"}, {"id": 2, "name": None}]))
    assert mart.rows() == [] and destination.position("big_deals.warehouse", "0b8e1f9c") is None
    assert destination.deliver(delivery([{"id": 1, "name": "a"}])).accepted == 1


def test_a_load_job_that_cannot_read_a_row_refuses_the_batch(mart: Warehouse) -> None:
    fields: list[dict[str, Any]] = [{"name": "id", "type": "INTEGER"}, {"name": "name", "type": "STRING", "maxLength": "3"}]
    mart.put(fields)
    destination = mart.destination(mode="append", record_columns=[])
    with pytest.raises(RecordRefused, match="maximum length"):
        destination.deliver(delivery([{"id": 1, "name": "Ada"}, {"id": 2, "name": "Charles"}]))
    assert mart.rows() == []
    destination.deliver(delivery([{"id": 1, "name": "Ada"}]))
    assert destination.position("big_deals.warehouse", "0b8e1f9c") == 1 and len(mart.rows()) == 1


@pytest.mark.parametrize(
    ("permission", "role"),
    [
        ("bigquery.jobs.create", "Job User"),
        ("bigquery.datasets.get", "Data Editor"),
        ("bigquery.tables.get", "Data Editor"),
        ("bigquery.tables.create", "Data Editor"),
        ("bigquery.tables.updateData", "Data Editor"),
    ],
)
def test_a_permission_that_is_missing_is_named_with_its_role(mart: Warehouse, permission: str, role: str) -> None:
    mart.bigquery.denied.add(permission)
    with pytest.raises(SignInError, match=permission) as told:
        mart.destination(mode="append").deliver(delivery([{"id": 1}]))
    assert permission in told.value.do and role in told.value.do


def test_a_dataset_that_is_not_there_is_for_a_person_to_create(mart: Warehouse) -> None:
    with pytest.raises(ConfigurationError, match="Dataset lab:nowhere") as told:
        mart.destination(dataset="nowhere").deliver(delivery([{"id": 1}]))
    assert "bq mk --dataset" in _do(told.value)


@pytest.mark.parametrize(
    ("status", "reason"), [(503, "backendError"), (500, "internalError"), (403, "quotaExceeded"), (403, "rateLimitExceeded")]
)
@pytest.mark.parametrize("path", ["/upload/bigquery/v2/projects/lab/jobs", "/tables"])
def test_a_passing_trouble_is_waited_out(mart: Warehouse, status: int, reason: str, path: str) -> None:
    destination = mart.destination(mode="append")
    mart.bigquery.fail_next.append((path, Refused(status, reason, "not now")))
    with pytest.raises(RetryLater, match="not now") as told:
        destination.deliver(delivery([{"id": 1}]))
    assert "the next run goes on" in told.value.do
    assert destination.deliver(delivery([{"id": 1}])).accepted == 1
    assert len(mart.rows()) == 1


def _with_reason(status: int, reason: str, message: str) -> Exception:
    return exceptions.from_http_status(status, message, errors=[{"reason": reason, "message": message}])


@pytest.mark.parametrize(
    ("error", "kind", "hint"),
    [
        (_with_reason(400, "invalidQuery", "Transaction is aborted due to concurrent update against table x"), RetryLater, "next run"),
        (_with_reason(400, "invalidQuery", "Could not serialize access to table x due to concurrent update"), RetryLater, "next run"),
        (
            _with_reason(400, "invalidQuery", "UPDATE or DELETE over table x would affect rows in the streaming buffer"),
            RetryLater,
            "next run",
        ),
        (
            _with_reason(400, "invalid", "Error while reading data, error message: Parquet column 'n' does not match the target type"),
            ConfigurationError,
            "another `table`",
        ),
        (_with_reason(403, "quotaExceeded", "Your table exceeded quota for imports"), RetryLater, "batching"),
        (_with_reason(403, "billingNotEnabled", "Billing has not been enabled for this project."), ConfigurationError, "billing"),
        (_with_reason(400, "invalid", "Provided Schema does not match Table x."), ConfigurationError, "another `table`"),
        (_with_reason(400, "invalid", "Error while reading data, error message: x"), RecordRefused, ""),
        (_with_reason(400, "invalidQuery", "Required field name cannot be null"), RecordRefused, ""),
        (_with_reason(400, "invalidQuery", "UPDATE/MERGE must match at most one source row for each target row"), RecordRefused, ""),
        (_with_reason(400, "invalidQuery", "Syntax error"), ConfigurationError, "correct"),
        (_with_reason(412, "conditionNotMet", "Precondition check failed."), RetryLater, "next run"),
        (exceptions.ServiceUnavailable("down"), RetryLater, "next run"),
        (exceptions.RetryError("gave up", cause=exceptions.Forbidden("no bigquery.tables.create")), SignInError, "bigquery.tables.create"),
        (exceptions.Forbidden("User may not write lab:mart.t"), SignInError, "bigquery.tables.updateData"),
        (exceptions.Forbidden("Request had insufficient authentication scopes."), SignInError, "scope"),
        (exceptions.Unauthorized("expired"), SignInError, "auth"),
        (exceptions.NotFound("Not found: Table x"), ConfigurationError, "location"),
        (exceptions.Forbidden("BigQuery API has not been used in project 1 before or it is disabled."), ConfigurationError, "enable"),
        (exceptions.from_http_status(410, "odd"), MuxlyError, "list of errors"),
        (RefreshError("invalid_grant: Invalid JWT Signature.", {"error": "invalid_grant"}), SignInError, "auth"),
        (TransportError("no route"), RetryLater, "network"),
        (ConnectionResetError("reset"), RetryLater, "network"),
        (JobTimeout(), RetryLater, "next run"),
    ],
)
def test_every_refusal_says_what_to_do(error: Exception, kind: type[MuxlyError], hint: str) -> None:
    told = in_person(error, "lab.mart.t")
    assert type(told) is kind and hint in _do(told) and told.where == "lab.mart.t"


def test_addresses_and_tokens_are_left_out() -> None:
    said = in_person(
        exceptions.BadRequest("POST https://bigquery.googleapis.com/x?access_token=ya29.hunter2: Bearer ya29.hunter2222222222222")
    ).what
    assert "hunter2" not in said and "https" not in said


@pytest.mark.parametrize("path", ["/upload/", "/tables/crm_deals", "/datasets/mart"])
def test_a_google_that_does_not_answer_is_not_waited_for_for_ever(mart: Warehouse, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(loading, "_UPLOAD_SECONDS", 0.2)
    monkeypatch.setattr(service, "_ANSWER_SECONDS", 0.2)
    destination, released = mart.destination(mode="append"), threading.Event()

    def hold(moment: str, method: str, where: str) -> None:
        if moment == "before" and path in where:
            released.wait()

    mart.bigquery.watch = hold
    with pytest.raises(RetryLater, match="cannot be reached"):
        destination.deliver(delivery([{"id": 1}]))
    mart.bigquery.watch = None
    released.set()
    monkeypatch.undo()
    impatient(monkeypatch)
    assert destination.deliver(delivery([{"id": 1}])).accepted == 1
    assert len(mart.rows()) == 1


def test_a_job_that_has_not_ended_yet_is_waited_for(mart: Warehouse) -> None:
    destination = mart.destination(mode="append")
    mart.bigquery.watch = Cuts("/upload/", "after", times=1)
    with pytest.raises(RetryLater):
        destination.deliver(delivery([{"id": 1}]))
    (promised,) = [row["job"] for row in mart.table("_muxly_offsets").to_pylist()]
    mart.bigquery.jobs[promised]["status"]["state"] = "RUNNING"

    def ends(moment: str, method: str, path: str) -> None:
        if path.endswith(promised) and moment == "after":
            mart.bigquery.jobs[promised]["status"]["state"] = "DONE"

    mart.bigquery.watch = ends
    assert destination.position("big_deals.warehouse", "0b8e1f9c") == 1
