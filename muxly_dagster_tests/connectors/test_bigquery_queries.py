"""Queries, views and the jobs that run them: named parameters, limits, labels, and what Google's own documents say of the traffic."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pydantic import ValidationError

from muxly_dagster.connectors.bigquery import Bigquery
from muxly_dagster.connectors.bigquery.settings import BigqueryPull
from muxly_dagster.errors import ConfigurationError
from muxly_dagster_tests.cli.command import MuxlyHere
from muxly_dagster_tests.connectors.lab import Lab, lab, orders, rows
from muxly_dagster_tests.peers.bigquery_sql import Relation
from muxly_dagster_tests.peers.discovery import Discovery


@pytest.fixture
def peer() -> Iterator[Lab]:
    with lab() as found:
        found.bigquery.put("shop.orders", orders(1, 2, 3))
        yield found


def _jobs(peer: Lab) -> list[dict[str, Any]]:
    return [exchange.sent["configuration"] for exchange in peer.bigquery.asked("/jobs")]


def test_a_query_is_run_and_its_result_read_in_streams(peer: Lab) -> None:
    found = peer.rows(query="SELECT id, id * 2 AS twice FROM shop.orders -- all of them;")
    assert found == [{"id": 1, "twice": 2}, {"id": 2, "twice": 4}, {"id": 3, "twice": 6}]
    assert len(peer.storage.reads) == 2 and "_anonymous" in peer.storage.sessions[0].read_session.table


@pytest.mark.parametrize(
    ("condition", "parameters", "kind"),
    [
        ("id = @n", {"n": 2}, "INT64"),
        ("text || '2' = @n AND id = 2", {"n": "first2"}, "STRING"),
        ("(id = 2) = @n AND id > 1 AND id < 3", {"n": True}, "BOOL"),
        ("id < @n AND id > 1", {"n": 2.5}, "FLOAT64"),
        ("id * 1.25 = @n", {"n": {"type": "NUMERIC", "value": "2.5"}}, "NUMERIC"),
        ("updated_at = @n", {"n": dt.datetime(2026, 1, 1, 0, 2, tzinfo=dt.UTC)}, "TIMESTAMP"),
        ("updated_at > @n AND id = 2", {"n": dt.date(2025, 1, 1)}, "DATE"),
        ("id IN UNNEST(@n)", {"n": [2]}, "ARRAY"),
        ("id IN UNNEST(@n)", {"n": {"type": "ARRAY<INT64>", "value": [2]}}, "ARRAY"),
        ("@n IS NULL AND id = 2", {"n": {"type": "STRING"}}, "STRING"),
    ],
)
def test_parameters_are_named_and_typed(peer: Lab, condition: str, parameters: dict[str, Any], kind: str) -> None:
    assert [row["id"] for row in peer.rows(query=f"SELECT id FROM shop.orders WHERE {condition}", parameters=parameters)] == [2]
    (sent,) = _jobs(peer)[-1]["query"]["queryParameters"]
    assert (sent["name"], sent["parameterType"]["type"]) == ("n", kind)
    assert _jobs(peer)[-1]["query"]["parameterMode"] == "NAMED"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"query": "SELECT 1", "parameters": {"1": 1}}, "no name"),
        ({"query": "SELECT 1", "parameters": {"cursor": 1}}, "Muxly itself"),
        ({"query": "SELECT 1", "parameters": {"n": None}}, "cannot be told"),
        ({"query": "SELECT 1", "parameters": {"n": [1, "a"]}}, "cannot be told"),
        ({"query": "SELECT 1", "parameters": {"n": {"type": "MONEY", "value": 1}}}, "not known"),
        ({"query": "SELECT 1", "parameters": {"n": {"type": "INT64", "value": [1]}}}, "list"),
        ({"query": "SELECT 1", "parameters": {"n": {"kind": "INT64"}}}, "map of"),
        ({"parameters": {"n": 1}}, "without a `query`"),
        ({"query": "SELECT 1", "table": "a.b"}, "both"),
        ({"query": "SELECT 1", "where": "a"}, "both"),
        ({"query": "SELECT @cursor"}, "no `cursor`"),
        ({"partition": True, "cursor": "a"}, "both"),
        ({"lookback": "1h"}, "without a `cursor`"),
        ({"cursor": "a", "lookback": "soon"}, "length of time"),
        ({"table": "a`b"}, "no name"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BigqueryPull.model_validate({"stream": "orders", **settings})


@pytest.mark.parametrize("asks_itself", [True, False])
def test_a_query_goes_by_a_cursor(peer: Lab, asks_itself: bool) -> None:
    condition = "WHERE @cursor IS NULL OR updated_at >= @cursor" if asks_itself else ""
    pull = {"query": f"SELECT id, updated_at FROM shop.orders {condition}", "key": ["id"], "cursor": "updated_at"}
    first = peer.batches(**pull)
    assert len(rows(first)) == 3
    assert [row["id"] for row in peer.rows(first[-1].cursor, **pull)] == [3]
    sent = [parameter for job in _jobs(peer) for parameter in job["query"].get("queryParameters", [])]
    assert sent[-1]["parameterValue"]["value"].startswith("2026-01-01")
    assert {parameter["parameterType"]["type"] for parameter in sent} == {"TIMESTAMP"}  # the column's: BigQuery compares no others


def test_a_query_that_broke_off_goes_on_in_its_result_and_runs_no_second_time(peer: Lab) -> None:
    pull = {"query": "SELECT * FROM shop.orders", "key": ["id"], "cursor": "updated_at"}
    connector = peer.connector()
    reading = connector.pull(connector.Pull.model_validate({"stream": "orders", **pull}), None, None)
    first = next(reading)
    reading.close()  # type: ignore[attr-defined]
    ran = len([job for job in _jobs(peer) if not job.get("dryRun")])
    rest = peer.rows(first.cursor, **pull)
    assert sorted(row["id"] for row in [*first.rows.to_pylist(), *rest]) == [1, 2, 3]
    assert len([job for job in _jobs(peer) if not job.get("dryRun")]) == ran


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED_VIEW", "EXTERNAL"])
def test_what_cannot_be_read_as_it_lies_is_read_by_a_query(peer: Lab, kind: str) -> None:
    peer.bigquery.tables["shop.seen"] = Relation(kind=kind, view="SELECT id, text, updated_at FROM `lab.shop.orders` WHERE id > 1")
    pull = {"table": "shop.seen", "columns": ["text"], "key": ["id"], "cursor": "updated_at", "where": "id < 3 -- few"}
    found = peer.batches(**pull)
    assert [(row["id"], row["text"]) for row in rows(found)] == [(2, "first")]
    assert "`lab.shop.seen`" in _jobs(peer)[-1]["query"]["query"]
    peer.bigquery.put("shop.orders", orders(1, 2, 3, hour=1, text="second"))
    assert [row["text"] for row in peer.rows(found[-1].cursor, **pull)] == ["second"]


def test_every_job_has_labels_a_limit_and_its_own_project(peer: Lab) -> None:
    connector = peer.connector(job_project="payer", labels={"team": "data"}, max_bytes_billed=50 << 20)
    assert connector.test_connection().status == "ok"
    for settings in ({"stream": "shop.orders"}, {"stream": "Über All", "query": "SELECT 1 AS n"}):
        pull = connector.Pull.model_validate(settings)
        connector.resolve(pull)
        assert connector.check_pull(pull) == () and connector.preview_notes(pull)
        list(connector.pull(pull, None, None))
    jobs = _jobs(peer)
    assert len(jobs) > 5
    assert {job["query"]["maximumBytesBilled"] for job in jobs} == {str(50 << 20)}
    assert {job["labels"]["team"] for job in jobs} == {"data"}
    assert {job["labels"]["muxly"] for job in jobs} == {"muxly", "shop_orders", "_ber_all"}
    assert {exchange.path.split("/")[4] for exchange in peer.bigquery.asked("/jobs")} == {"payer"}
    assert {session.parent for session in peer.storage.sessions} == {"projects/payer"}
    assert peer.storage.sessions[0].read_session.table.startswith("projects/lab/")


def test_the_traffic_is_as_googles_own_document_has_it(peer: Lab) -> None:
    connector = peer.connector()
    peer.bigquery.put("shop.keyed", orders(1), key=("id",))
    connector.streams()
    peer.batches(table="shop.keyed", cursor="updated_at")
    peer.batches(query="SELECT id FROM shop.orders WHERE id = @n AND text IN UNNEST(@t)", parameters={"n": 1, "t": ["first"]})
    document = Discovery("bigquery", "v2")
    assert len({exchange.path.split("/")[5] for exchange in peer.bigquery.exchanges}) == 3
    wrong = [document.violations(e.method, e.path, e.query, e.sent, e.answer) for e in peer.bigquery.exchanges]
    assert [violation for found in wrong for violation in found] == []
    assert document.violations("GET", "/bigquery/v2/projects/lab/datasets", ["wrong"], None, {"datasets": "none"})


def test_a_preview_tells_the_bytes_beforehand(peer: Lab) -> None:
    connector, size = peer.connector(), orders(1, 2, 3)
    (said,) = connector.preview_notes(connector.Pull.model_validate({"stream": "shop.orders"}))
    assert said == f"a whole pull reads {sum(column.nbytes for column in size.columns):,} bytes by the Storage Read API"
    (said,) = connector.preview_notes(connector.Pull.model_validate({"stream": "shop.orders", "columns": ["id"]}))
    assert said.startswith("a whole pull reads 24 bytes")
    (said,) = connector.preview_notes(connector.Pull.model_validate({"stream": "x", "query": "SELECT id FROM shop.orders"}))
    assert said == "a whole pull reads 24 bytes by a query, of at most 107,374,182,400 that it may be billed for"


def test_a_query_over_the_limit_never_runs(peer: Lab) -> None:
    big = pa.table({"id": pa.array(range(3 << 19), pa.int64())})
    peer.bigquery.put("shop.big", big)
    connector = peer.connector(max_bytes_billed=10 << 20)
    pull = connector.Pull.model_validate({"stream": "big", "query": "SELECT id FROM shop.big"})
    with pytest.raises(ConfigurationError, match="12,582,912 bytes") as told:
        list(connector.pull(pull, None, None))
    assert "max_bytes_billed" in told.value.problems[0].do
    assert all(job.get("dryRun") for job in _jobs(peer))
    assert "12,582,912" in connector.check_pull(pull)[0]


@pytest.mark.parametrize("query", ["INSERT INTO shop.orders (id) VALUES (4)", "DROP TABLE shop.orders"])
def test_only_a_select_is_run(peer: Lab, query: str) -> None:
    with pytest.raises(ConfigurationError, match="a pull only reads"):
        peer.batches(query=query)
    assert all(job.get("dryRun") for job in _jobs(peer))


def test_a_job_that_failed_in_passing_is_run_again(peer: Lab) -> None:
    peer.bigquery.jobs_fail = ["jobBackendError", "jobInternalError"]
    assert len(peer.rows(query="SELECT id FROM shop.orders")) == 3
    assert len([job for job in _jobs(peer) if not job.get("dryRun")]) == 3


def test_the_servers_own_limit_is_told_as_ours_is(peer: Lab) -> None:
    peer.bigquery.jobs_fail = ["bytesBilledLimitExceeded"]
    with pytest.raises(ConfigurationError, match="billed for more"):
        peer.batches(query="SELECT id FROM shop.orders")


def test_the_command_previews_and_runs_a_project(peer: Lab, tmp_path: Path) -> None:
    source = {
        "connector": "bigquery",
        "auth": {"kind": "service_account", "key": "${WAREHOUSE_KEY}"},
        "api_endpoint": peer.bigquery.url,
        "storage_endpoint": peer.storage.url,
        "dataset": "shop",
        "pulls": {"orders": {"key": ["id"], "columns": ["text"]}},
    }
    (tmp_path / "muxly.yaml").write_text(yaml.safe_dump({"sources": {"warehouse": source}}))
    muxly = MuxlyHere(tmp_path, {"WAREHOUSE_KEY": peer.bigquery.key(), "MUXLY_HOME": str(tmp_path / ".muxly")})
    shown = muxly("preview", "warehouse.orders", "-n", "2", "--json")
    assert (shown.code, len(shown.json)) == (0, 2)
    assert "warehouse.orders: a whole pull reads" in shown.err and "bytes by the Storage Read API" in shown.err
    ran = muxly("run", "warehouse.orders", "--json")
    assert (ran.code, ran.json[0]["changed"]) == (0, 3)
    assert not [secret for secret in (peer.bigquery.key(), *peer.bigquery.tokens) if secret in "".join(muxly.said)]


@pytest.mark.parametrize("address", ["http://example.com", "ftp://127.0.0.1", "127.0.0.1:80", "http://10.0.0.1:80"])
def test_without_tls_only_this_machine_is_spoken_to(address: str) -> None:
    with pytest.raises(ValidationError, match="this machine alone"):
        Bigquery.model_validate({"api_endpoint": address})


@pytest.mark.parametrize("labels", [{"Team": "data"}, {"team": "Data!"}, {"x" * 64: "data"}])
def test_labels_that_google_would_refuse_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="no label"):
        Bigquery.model_validate({"labels": labels})
