"""Current rows of the lake."""

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import pyarrow as pa
from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from muxly_dagster import browsing, records
from muxly_dagster.api.answers import JSON, Read, json_answer, unknown
from muxly_dagster.api.negotiating import best
from muxly_dagster.api.paging import After, Limit, Page, page_of, place_cursor, place_of
from muxly_dagster.api.problems import ApiError
from muxly_dagster.api.service import service_of
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater
from muxly_dagster.lake import LakeTable
from muxly_dagster.previewing import to_rows
from muxly_dagster.runtime import Runtime

router = APIRouter(tags=["Tables"])

NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"

TableName = Annotated[str, Path(description="A pull (`source.pull`) or a transform.", examples=["crm.deals"], max_length=255)]
RowLimit = Annotated[int, Query(ge=1, le=10_000, description="The most rows of one page.", examples=[100])]
Filter = Annotated[
    str,
    Query(
        description="A SQL condition over the table's columns, in DuckDB's words; rows for which it is true are shown.",
        examples=["amount > 10000 and dealstage = 'closedwon'"],
        max_length=4000,
    ),
]
Select = Annotated[
    list[Annotated[str, Field(max_length=200)]] | None,
    Query(description="A column that is wanted; repeat it for more. All unless given.", examples=[["id", "amount"]], max_length=100),
]
Accept = Annotated[str, Header(description=f"{JSON}, {NDJSON} or {ARROW}.", examples=[JSON], max_length=1000)]

_ROW = {"id": 1001, "amount": "12500.00", "dealstage": "closedwon", "closedate": "2026-02-27T00:00:00Z"}


class Table(Read):
    """A table of the lake: what a pull or a transform stores."""

    name: str = Field(description="`source.pull`, or the transform's name.", examples=["crm.deals"])
    kind: Literal["pull", "transform"] = Field(description="What stores it.", examples=["pull"])
    key: list[str] = Field(description="Columns that identify a record; none: each record stands for itself.", examples=[["id"]])
    columns: dict[str, str] = Field(
        description="Columns with their types, once something is stored.", examples=[{"id": "int64", "amount": "decimal128(10, 2)"}]
    )
    rows: int = Field(description="Current rows.", examples=[1204])
    changes: int = Field(description="All changes that are stored: the number of the newest.", examples=[1377])
    table_id: str = Field(description="Part of every record id; empty while nothing is stored.", examples=["8f3a2c11"])


class Rows(Read):
    """One page of current rows."""

    items: list[dict[str, Any]] = Field(description="The rows, with decimals as text, times in UTC and bytes in base64.", examples=[[_ROW]])
    next: str = Field(
        "", description="The cursor of the page behind it; empty on the last one.", examples=["WyJyb3dzIiwiY3JtLmRlYWxzIiwiMTAwMSJd"]
    )


@router.get("/v1/tables", operation_id="list_tables", summary="List tables", response_model=Page[Table])
def list_tables(request: Request, limit: Limit = 100, cursor: After = "") -> Page[Table]:
    """All tables of the project by name, also those in which nothing is stored yet."""
    runtime = service_of(request).runtime
    page = page_of(sorted([*runtime.assembly.pulls, *runtime.assembly.transforms]), limit, cursor, str)
    return Page(items=[_table(runtime, name) for name in page.items], next=page.next)


@router.get("/v1/tables/{name}", operation_id="get_table", summary="Show a table", response_model=Table)
def get_table(request: Request, name: TableName) -> Table:
    """One table with its columns and counts."""
    runtime = service_of(request).runtime
    _stored(runtime, name)
    return _table(runtime, name)


@router.get(
    "/v1/tables/{name}/rows",
    operation_id="list_rows",
    summary="Query rows",
    response_model=Rows,
    responses={
        200: {
            "description": "A page of rows. `Link` names the next one, in every form.",
            "headers": {"Link": {"description": 'The next page, `rel="next"` (RFC 8288).', "schema": {"type": "string"}}},
            "content": {
                NDJSON: {"schema": {"type": "string"}, "example": records.to_json(_ROW).decode() + "\n"},
                ARROW: {"schema": {"type": "string", "format": "binary"}, "example": "an Arrow IPC stream with the table's own types"},
            },
        },
        406: {"description": "None of the forms that are accepted is one of these."},
    },
)
def list_rows(
    request: Request,
    name: TableName,
    filter: Filter = "",
    select: Select = None,
    limit: RowLimit = 100,
    cursor: After = "",
    accept: Accept = JSON,
) -> Response:
    """Current rows of a table, in the order of their keys as text, so that pages fit together though rows come and go meanwhile.

    As JSON, one row a line, or as an Arrow stream. Numbers stand exactly as they are stored.
    """
    form = best(accept, (JSON, NDJSON, ARROW))
    if form is None:
        raise ApiError(406, "Not acceptable", f"rows come as {JSON}, {NDJSON} or {ARROW}", do="say one of them in Accept")
    runtime = service_of(request).runtime
    table = _stored(runtime, name)
    place = place_of(cursor, "rows", str, str)
    if place is not None and place[0] != name:
        raise ApiError(400, "The cursor is of another table", do="use `next` of the page before as it stands, or leave it out")
    rows, last = _read(table, filter, select or [], place[1] if place else None, limit)
    following = place_cursor("rows", name, last) if last is not None else ""
    headers = {"vary": "Accept"}
    if following:
        said = [(key, value) for key, value in request.query_params.multi_items() if key != "cursor"]
        headers["link"] = f'<?{urlencode([*said, ("cursor", following)])}>; rel="next"'
    if form == JSON:
        return json_answer({"items": to_rows(rows), "next": following}, headers)
    content = _arrow(rows) if form == ARROW else b"".join(records.to_json(row) + b"\n" for row in to_rows(rows))
    return Response(content, media_type=form, headers=headers)


def _read(table: LakeTable | None, filter: str, select: list[str], after: str | None, limit: int) -> tuple[pa.Table, str | None]:
    if table is None:
        return pa.table({}), None
    try:
        return browsing.read(table, where=filter, columns=list(dict.fromkeys(select)), after=after, limit=limit)
    except (ConfigurationError, RetryLater):
        raise
    except MuxlyError as error:
        if not filter:
            raise
        raise ApiError(422, "The filter cannot be answered", error.what, do=error.do) from None


def _arrow(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _stored(runtime: Runtime, name: str) -> LakeTable | None:
    """The table, or None while nothing is stored in it. Raises ApiError (404) where the project has none of that name."""
    known = (*runtime.assembly.pulls, *runtime.assembly.transforms)
    if name not in known:
        raise unknown("table", name, known, "list them with GET /v1/tables")
    return runtime.lake.table(name)


def _table(runtime: Runtime, name: str) -> Table:
    pull, table = runtime.assembly.pulls.get(name), runtime.lake.table(name)
    key = pull.stream.key if pull is not None else runtime.assembly.transforms[name].key
    return Table(
        name=name,
        kind="pull" if pull is not None else "transform",
        key=list(table.key if table is not None else key),
        columns=browsing.columns(table) if table is not None else {},
        rows=browsing.count(table) if table is not None else 0,
        changes=table.head if table is not None else 0,
        table_id=table.table_id if table is not None else "",
    )
