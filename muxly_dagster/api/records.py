"""Where a record went."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from muxly_dagster import records
from muxly_dagster.api.answers import Read, json_answer, unknown
from muxly_dagster.api.problems import not_found
from muxly_dagster.api.service import service_of
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.runtime import Runtime

router = APIRouter(tags=["Records"])

_ID = "crm.deals:8f3a2c11:42"
_RUN = "0b1f3c52-8a3e-4f0e-9d0c-54d1e4a2b7aa"
_METADATA = {
    "run": _RUN,
    "seq": 42,
    "schema_hash": "9c0d7e5b1a246830",
    "content_hash": "41d2c9f0a7b83e65",
}


class Record(Read):
    """A change in the form that records have everywhere."""

    id: str = Field(description="The same change has the same id for ever.", examples=[_ID])
    connector_id: str = Field(description="What it was read with.", examples=["hubspot"])
    stream: str = Field(description="The table.", examples=["crm.deals"])
    op: str = Field(description="upsert, delete or append.", examples=["upsert"])
    key: str = Field(description="The record's key, as text.", examples=["1001"])
    timestamp: str = Field(description="When Muxly read it.", examples=["2026-03-01T06:00:04.112000Z"])
    data: dict[str, Any] = Field(description="The columns.", examples=[{"id": 1001, "amount": "12500.00", "dealstage": "closedwon"}])
    metadata: dict[str, Any] = Field(description="The run, the number in its table, hashes, and notes on quality.", examples=[_METADATA])


class Part(Read):
    """A part of a condition that decided."""

    text: str = Field(description="The part.", examples=["amount > 10000"])
    answer: bool | None = Field(description="What it came to.", examples=[True])
    values: dict[str, Any] = Field(description="The values that it saw.", examples=[{"amount": "12500.00"}])


class Asked(Read):
    """A rule, and what it said of the record."""

    rule: str = Field(description="Its name, or its number.", examples=["rule 1"])
    when: str | None = Field(description="Its condition.", examples=["amount > 10000"])
    answer: bool | None = Field(description="What the condition came to; null where it fails on this record.", examples=[True])
    sampled: bool = Field(description="Whether the key is in the rule's sample.", examples=[True])
    decided: bool = Field(description="Whether this rule decided.", examples=[True])
    because: list[Part] = Field(description="The parts of the condition that decided.")
    to: list[str] = Field(description="Where it sends records.", examples=[["warehouse"]])


class Told(Read):
    """The receipt that covers a change."""

    id: str = Field(description="The receipt.", examples=["5a1e07c2b94d3f80"])
    at: str = Field(description="When.", examples=["2026-03-01T06:00:05.120000Z"])
    run: str = Field(description="The run that delivered.", examples=[_RUN])
    detail: dict[str, Any] = Field(description="What the destination says of it.", examples=[{"table": "big_deals"}])


class Refused(Read):
    """The dead letter of a change."""

    id: str = Field(description="The dead letter.", examples=["3f9c0d7e5b1a2468"])
    reason: str = Field(description="Why it was refused.", examples=["amount: 'a lot' is not a number"])
    status: str = Field(description="What became of it.", examples=["open"])


class Waits(Read):
    """What a delivery waits for."""

    until: str = Field(description="The moment.", examples=["2026-03-01T06:05:00+00:00"])
    why: str = Field(description="What for.", examples=["connection refused"])


class At(Read):
    """What became of a change at one delivery."""

    target: str = Field(description="The delivery.", examples=["big_deals.warehouse"])
    destination: str = Field(description="Where it delivers to, in words.", examples=["postgresql: big_deals"])
    routed: bool = Field(description="Whether the rules send it there.", examples=[True])
    outcome: str = Field(description="What became of it, in words.", examples=["accepted"])
    waits: Waits | None = Field(description="What it waits for, where it was not delivered yet.")
    rules_of: str = Field(description="`then`: the rules by which it was decided; `now`: those of today.", examples=["then"])
    rules: list[Asked] = Field(description="What each rule said.")
    otherwise: list[str] = Field(description="Where it goes because no rule matched.", examples=[[]])
    receipt: Told | None = Field(description="The receipt that covers it; null: not delivered yet.")
    dead_letter: Refused | None = Field(description="The dead letter, if it was refused.")


class Story(Read):
    """One change, and what became of it at every delivery that reads its table."""

    record: Record = Field(description="The change.")
    targets: list[At] = Field(description="One entry for each delivery.")


class Stories(Read):
    """One or several changes of a record, the oldest first."""

    items: list[Story] = Field(description="A story for each change.")


@router.get("/v1/records/{record_id}/trace", operation_id="trace_record", summary="Trace a change", response_model=Stories)
def trace_record(
    request: Request,
    record_id: Annotated[str, Path(description="The `id` that the change has everywhere.", examples=[_ID], max_length=600)],
) -> Response:
    """Where one change went: what each rule said of it and why, the receipt that covers it, its dead letter if it was refused."""
    if records.parse_record_id(record_id) is None:
        raise not_found(f"{record_id} is no record id", "take the `id` of a record, or ask GET /v1/trace?table=...&key=...")
    return _stories(service_of(request).runtime, record_id.partition(":")[0], record_id)


@router.get("/v1/trace", operation_id="trace_key", summary="Trace a record", response_model=Stories)
def trace_key(
    request: Request,
    table: Annotated[str, Query(description="The table.", examples=["crm.deals"], min_length=1, max_length=255)],
    key: Annotated[str, Query(description="The record's key, as text.", examples=["1001"], min_length=1, max_length=2000)],
) -> Response:
    """Where every change of one record went, by table and key."""
    return _stories(service_of(request).runtime, table, f"{table} {key}")


def _stories(runtime: Runtime, table: str, text: str) -> Response:
    known = (*runtime.assembly.pulls, *runtime.assembly.transforms)
    if table not in known:
        raise unknown("table", table, known, "list them with GET /v1/tables")
    if runtime.lake.table(table) is None:
        raise not_found(f"{table} has no data yet", f"run it first: POST /v1/jobs/JOB/runs, or `muxly run {table}`")
    try:
        return json_answer({"items": runtime.trace(text)})
    except ConfigurationError as error:
        problem = error.problems[0]
        raise not_found(problem.what, problem.do) from None
