"""What BigQuery refuses is said with what to do; the place is kept, and no secret is told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.api_core import exceptions
from google.auth.exceptions import RefreshError, TransportError

from muxly_dagster import pulling
from muxly_dagster.assembly import Pull
from muxly_dagster.connectors.bigquery import Bigquery, service
from muxly_dagster.connectors.bigquery.refusals import in_person
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError, SourceError
from muxly_dagster.lake import Lake
from muxly_dagster.state import State
from muxly_dagster_tests.connectors.lab import Lab, lab, orders
from muxly_dagster_tests.peers.bigquery import REFRESH_TOKEN
from muxly_dagster_tests.peers.bigquery_sql import Relation


@pytest.fixture
def peer() -> Iterator[Lab]:
    with lab() as found:
        found.bigquery.put("shop.orders", orders(1, 2, 3))
        yield found


def _do(error: MuxlyError) -> str:
    return error.problems[0].do if isinstance(error, ConfigurationError) else error.do


@pytest.mark.parametrize(
    ("pull", "hint"),
    [
        ({"table": "shop.ordres"}, "no table ordres in lab.shop; did you mean orders"),
        ({"table": "shpo.orders"}, "no dataset shpo in lab; did you mean shop"),
        ({"columns": ["txt"]}, "no column txt; did you mean text"),
        ({"cursor": "updated"}, "no column updated; did you mean updated_at"),
        ({"key": ["idd"]}, "no column idd; did you mean id"),
        ({"query": "SELECT id FROM shop.orders", "key": ["di"]}, "the query of shop.orders has no column di; there is id"),
        ({"query": "SELECT id FROM shop.orders", "cursor": "ids"}, "no column ids to go by; did you mean id"),
        ({"query": "SELECT txt FROM shop.orders"}, "Unrecognized name: txt"),
        ({"query": "SELECT FROM WHERE"}, "correct the pull's"),
        ({"query": "SELECT * FROM shop.nowhere"}, "nowhere was not found"),
        ({"query": "SELECT @n"}, "under the pull's `parameters`"),
        ({"where": "txt = 1"}, "correct the pull's"),
        ({"table": "orders"}, "which dataset"),
        ({"cursor": "doc", "table": "shop.docs"}, "no exact order"),
        ({"cursor": "tags", "table": "shop.docs"}, "no exact order"),
        ({"cursor": "updated_at", "lookback": "5", "key": ["id"]}, "cannot be taken from updated_at"),
        ({"cursor": "id", "lookback": "5m", "key": ["id"]}, "cannot be taken from id"),
        ({"cursor": "id", "lookback": "5"}, "stored twice"),
    ],
)
def test_names_and_settings_that_cannot_be_are_told_with_the_nearest(peer: Lab, pull: dict[str, Any], hint: str) -> None:
    peer.bigquery.put("shop.docs", pa.table({"doc": pa.array([b"x"]), "tags": pa.array([["a"]])}))
    cursor = {"column": pull["cursor"], "value": 1 if pull["cursor"] == "id" else "2026-01-01"} if "lookback" in pull else None
    with pytest.raises(ConfigurationError, match=hint):
        peer.batches(cursor, **pull)


@pytest.mark.parametrize(
    ("permission", "role"),
    [
        ("bigquery.jobs.create", "Job User"),
        ("bigquery.readsessions.create", "Read Session User"),
        ("bigquery.tables.get", "Data Viewer"),
        ("bigquery.tables.getData", "Data Viewer"),
    ],
)
def test_a_permission_that_is_missing_is_named_with_its_role(peer: Lab, permission: str, role: str) -> None:
    peer.bigquery.denied.add(permission)
    with pytest.raises(SignInError, match=permission) as told:
        peer.batches()
    assert permission in told.value.do and role in told.value.do


def test_a_view_without_rights_says_where_they_are_needed(peer: Lab) -> None:
    peer.bigquery.tables["shop.seen"] = Relation(kind="VIEW", view="SELECT id FROM shop.orders")
    peer.bigquery.denied.add("bigquery.tables.getData")
    with pytest.raises(SignInError, match="getData") as told:
        peer.batches(table="shop.seen")
    assert "the tables behind it" in told.value.do


def test_a_connection_is_tried_and_told(peer: Lab) -> None:
    result = peer.connector().test_connection()
    assert (result.status, result.what) == ("ok", "signed in as muxly@lab.iam.gserviceaccount.com, jobs run in lab")
    peer.bigquery.denied.add("bigquery.jobs.create")
    result = peer.connector(job_project="payer").test_connection()
    assert (result.status, result.tried) == ("failed", "dry run of SELECT 1 in payer")
    assert "bigquery.jobs.create" in result.do
    peer.bigquery.denied.clear()
    peer.bigquery.scope_missing = True
    result = peer.connector().test_connection()
    assert "scope" in result.what and "auth/bigquery" in result.do


def test_a_user_is_asked_for_the_project(peer: Lab) -> None:
    auth = {"kind": "oauth2", "client_id": "c", "refresh_token": REFRESH_TOKEN, "token_url": f"{peer.bigquery.url}/token"}
    connector = peer.connector(auth=auth)
    assert "project" in connector.test_connection().what
    connector = peer.connector(auth=auth, project="lab")
    assert connector.test_connection().status == "ok"
    assert sum(len(batch.rows) for batch in connector.pull(connector.Pull.model_validate({"stream": "shop.orders"}), None, None)) == 3
    wrong = peer.connector(auth={**auth, "refresh_token": "1//withdrawn"}, project="lab").test_connection()
    assert wrong.status == "failed" and wrong.do and "withdrawn" not in f"{wrong.what} {wrong.do}"


def test_the_deployments_own_identity_comes_by_dagsters_resource(peer: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key.json"
    key.write_text(peer.bigquery.key())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", peer.bigquery.url)
    connector = Bigquery.model_validate({"storage_endpoint": peer.storage.url})
    assert connector.metadata().account == "muxly@lab.iam.gserviceaccount.com"
    assert sum(len(batch.rows) for batch in connector.pull(connector.Pull.model_validate({"stream": "shop.orders"}), None, None)) == 3


def test_a_google_that_cannot_be_reached_is_worth_another_try(peer: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_PATIENCE", 0.2)
    connector = peer.connector(api_endpoint="http://127.0.0.1:1")
    with pytest.raises(RetryLater) as told:
        connector.streams()
    assert "network" in told.value.do
    assert connector.test_connection().status == "failed"


def test_after_a_refusal_the_place_is_kept(peer: Lab, tmp_path: Path) -> None:
    connector = peer.connector()
    settings = connector.Pull.model_validate({"stream": "shop.orders", "key": ["id"], "cursor": "updated_at"})
    pull = Pull("shop.orders", "shop", connector, settings, connector.stream(settings))
    state, lake = State.open(f"sqlite:///{tmp_path}/state.db", tmp_path), Lake(str(tmp_path / "lake"))
    assert pulling.pull(lake, state, pull, run_id="one").changed == 3
    peer.bigquery.denied.add("bigquery.readsessions.create")
    with pytest.raises(SignInError):
        pulling.pull(lake, state, pull, run_id="two")
    peer.bigquery.denied.clear()
    peer.bigquery.put("shop.orders", pa.concat_tables([orders(1, 2, 3), orders(4, hour=1)]))
    assert pulling.pull(lake, state, pull, run_id="three").changed == 1
    assert "00:03:00" in peer.storage.sessions[-1].read_session.read_options.row_restriction
    state.close()


def _with_reason(status: int, reason: str, message: str) -> Exception:
    return exceptions.from_http_status(status, message, errors=[{"reason": reason, "message": message}])


@pytest.mark.parametrize(
    ("error", "kind", "hint"),
    [
        (_with_reason(403, "rateLimitExceeded", "Exceeded rate limits"), RetryLater, "try again"),
        (_with_reason(403, "quotaExceeded", "Quota exceeded"), RetryLater, "try again"),
        (_with_reason(500, "bytesBilledLimitExceeded", "Query exceeded limit for bytes billed: 1"), ConfigurationError, "max_bytes_billed"),
        (_with_reason(400, "backendError", "later"), RetryLater, "try again"),
        (exceptions.ServiceUnavailable("down"), RetryLater, "try again"),
        (exceptions.ResourceExhausted("too many"), RetryLater, "try again"),
        (exceptions.RetryError("gave up", cause=exceptions.PermissionDenied("no bigquery.tables.getData")), SignInError, "getData"),
        (exceptions.Forbidden("User does not have permission to query table lab:shop.orders"), SignInError, "bigquery.tables.getData"),
        (exceptions.Unauthenticated("expired"), SignInError, "auth"),
        (exceptions.NotFound("Not found: Dataset"), ConfigurationError, "location"),
        (exceptions.Forbidden("BigQuery API has not been used in project 1 before or it is disabled."), ConfigurationError, "enable"),
        (exceptions.BadRequest("without a filter that can be used for partition elimination"), ConfigurationError, "`partition: true`"),
        (exceptions.Conflict("odd"), SourceError, "list of errors"),
        (RefreshError("invalid_grant: Invalid JWT Signature.", {"error": "invalid_grant"}), SignInError, "auth"),
        (TransportError("no route"), RetryLater, "network"),
    ],
)
def test_every_refusal_says_what_to_do(error: Exception, kind: type[MuxlyError], hint: str) -> None:
    told = in_person(error, "lab.shop.orders")
    assert type(told) is kind and hint in _do(told) and told.where == "lab.shop.orders"


def test_addresses_and_tokens_are_left_out() -> None:
    said = in_person(
        exceptions.BadRequest("GET https://bigquery.googleapis.com/x?access_token=ya29.hunter2: Bearer ya29.hunter2222222222222")
    ).what
    assert "hunter2" not in said and "https" not in said
