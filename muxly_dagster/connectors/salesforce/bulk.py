"""Bulk API 2.0: a query as a job of Salesforce's own, whose result is fetched in pieces (CSV) that stay for seven days.

https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/queries.htm
"""

import contextlib
import csv
import io
import time
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pyarrow as pa
from pyarrow import csv as arrow_csv

from muxly_dagster.connectors.salesforce.api import Api, Missing
from muxly_dagster.connectors.salesforce.objects import DELETED, Query
from muxly_dagster.connectors.salesforce.rows import Records
from muxly_dagster.errors import MuxlyError, RetryLater, SourceError

_FIRST_WAIT, _LONGEST_WAIT = 0.25, 30.0


class JobFailed(SourceError):
    """Salesforce gave the job up."""


def start_job(api: Api, query: Query) -> str:
    """Have the query run: the job's id. Raises NoBulk where the object is not one for it."""
    body = {"operation": "queryAll" if query.every else "query", "query": query.soql(), "contentType": "CSV"}
    # A job that was started twice costs a job of the day's many, and nothing else.
    return str(api.send("POST", api.path("jobs", "query"), json=body, idempotent=True).json()["id"])


def wait_for(api: Api, job: str, seconds: float) -> None:
    """Wait until its result is there. Raises Missing for a job that is gone or was aborted, JobFailed, RetryLater after so many seconds."""
    wait, until = _FIRST_WAIT, time.monotonic() + seconds
    while True:
        answer = api.get(api.path("jobs", "query", job))
        found: dict[str, Any] = answer.json()
        state = found.get("state")
        if state == "JobComplete":
            return
        if state == "Aborted":
            raise Missing(f"the bulk job {job} was aborted", do="run it again: it starts anew", where=answer.where)
        if state == "Failed":
            do = "change the pull as the message says, or set `mode: rest`; if it is passing, run it again: it starts anew"
            said = answer.redaction(str(found.get("errorMessage", "no reason given")))
            raise JobFailed(f"the bulk job {job} failed ({said})", do=do, where=answer.where)
        if time.monotonic() > until:
            raise RetryLater(f"the bulk job {job} is still under way ({state})", do="run it again later, or raise `bulk_timeout`")
        if api.stop.wait(wait):
            raise RetryLater("nobody waits for the bulk job any more", do="run it again")
        wait = min(2 * wait, _LONGEST_WAIT)


def results(api: Api, job: str, query: Query, locator: str, at: dict[str, Any], size: int) -> Iterator[Records]:
    """The result, or what lies behind a locator, so many records at a time; each with the cursor `at` and the locator of the rest."""
    while True:
        response = api.get(api.path("jobs", "query", job, "results"), {"maxRecords": size, "locator": locator or None})
        after = response.headers.get("sforce-locator", "")
        after = "" if after == "null" else after
        if after and after == locator:
            raise SourceError("the bulk result does not come to an end", do="run it again", where=response.where)
        rows = read_csv(response.content, query.fields)
        told = response.headers.get("sforce-numberofrecords", "")
        if told.isdigit() and int(told) != len(rows):
            what = f"a piece of the bulk result has {len(rows)} records and should have {told}"
            raise SourceError(what, do="run it again; if it stays, set `mode: rest`", where=response.where)
        gone = [row["Id"] for row in rows if row.get(DELETED) == "true"]
        alive = [orjson.dumps(row) for row in rows if row.get(DELETED) != "true"]
        yield Records(alive, gone, {**at, "locator": after} if after else None)
        if not after:
            return
        locator = after


def end_job(api: Api, job: str) -> None:
    """Throw the result away; what cannot be thrown away goes by itself after seven days."""
    with contextlib.suppress(MuxlyError):
        api.send("DELETE", api.path("jobs", "query", job))


def read_csv(content: bytes, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a result as texts by field; what is empty is left out. `names` are the columns where no header line gives them."""
    first = next(csv.reader(io.StringIO(content[: 2**20].partition(b"\n")[0].decode("utf-8", "replace"))), [])
    headed = {name.lower() for name in first} == {name.lower() for name in names}
    columns = first if headed else list(names)
    if not content.strip() or (headed and b"\n" not in content.strip()):
        return []
    try:
        table = arrow_csv.read_csv(
            pa.py_buffer(content),
            arrow_csv.ReadOptions(use_threads=False, column_names=columns, skip_rows=int(headed), block_size=len(content) + 1),
            arrow_csv.ParseOptions(newlines_in_values=True),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        raise SourceError(f"the bulk result is no CSV ({error})", do="run it again; if it stays, set `mode: rest`") from None
    return [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]
