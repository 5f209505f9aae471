"""A Salesforce organisation over HTTP, as far as the REST and Bulk 2.0 references describe it: describes, SOQL, jobs, a recycle bin.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest and .../api_asynch.meta/api_asynch
"""

import csv
import datetime as dt
import io
import json
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, unquote

from muxly_dagster.connectors.salesforce import Salesforce
from muxly_dagster_tests.http.server import Asked, answer, json_answer
from muxly_dagster_tests.peers.service import Service, body

BASE = "/services/data/v67.0"
_SOQL = re.compile(r"SELECT (?P<fields>.+?) FROM (?P<table>\w+)(?: WHERE (?P<where>.+?))?(?: ORDER BY (?P<order>\w+))?")
_TERM = re.compile(r"(?P<field>\w+) (?P<op>>=|>|<) (?:'(?P<text>\w*)'|(?P<time>[\dTZ:.-]+))")
_MINUTE = dt.timedelta(minutes=1)
_AMONG = re.compile(r"Id IN \((?P<ids>[\w',]*)\)")

ACCOUNT = {
    "Id": "id",
    "Name": "string",
    "IsDeleted": "boolean",
    "SystemModstamp": "datetime",
    "CreatedDate": "datetime",
    "AnnualRevenue": "currency",
    "NumberOfEmployees": "int",
    "IsPriority__c": "boolean",
    "Founded__c": "date",
    "BillingAddress": "address",
    "BillingCity": "string",
    "Photo__c": "base64",
    "Rank__c": "formula",
}


@dataclass
class Job:
    """A bulk query: its rows, and after how many looks it is complete."""

    rows: list[dict[str, Any]]
    fields: list[str]
    operation: str
    looks: int = 1
    state: str = "InProgress"


@dataclass
class Table:
    """An object: the types of its fields, and its records by id."""

    types: dict[str, str]
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    bulk: bool = True
    log: list[tuple[str, dt.datetime]] = field(default_factory=list)


class Organisation(Service):
    """The organisation. The contract's records are accounts, whose `Name` is the text; `pull` and `settings` are the connector's."""

    def __init__(self, *, mode: str = "rest", page: int = 3, **settings: Any) -> None:
        super().__init__()
        self.secrets = [*self.secrets, "the-c0nsumer-secret"]
        self.pull: Mapping[str, Any] = {"stream": "Account", "mode": mode}
        self.settings, self.page, self.piece, self.looks = settings, page, page, 1
        self.now = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
        self.tables: dict[str, Table] = {"Account": Table(dict(ACCOUNT)), "Organization": Table({"Id": "id", "Name": "string"})}
        self.jobs: dict[str, Job] = {}
        self.deleted_jobs: list[str] = []
        self.header_once, self.started = False, 0
        self.error: tuple[int, str, str] | None = None
        self._rest: dict[str, tuple[list[dict[str, Any]], str, str, list[str]]] = {}

    # ---- what happens in the organisation

    def write(self, table: str, number: int, **fields: Any) -> str:
        """Create or change a record, a second later."""
        self.now += dt.timedelta(seconds=1)
        return self.write_now(table, number, **fields)

    def write_now(self, table: str, number: int, **fields: Any) -> str:
        """Create or change a record without any time going by."""
        name = f"001{number:015}"
        record = self.tables[table].records.setdefault(name, {"Id": name, "CreatedDate": self.now, "IsDeleted": False})
        record.update(fields, SystemModstamp=self.now, IsDeleted=False)
        return name

    def purge(self, number: int) -> None:
        """Empty the bin of one record."""
        del self.tables["Account"].records[f"001{number:015}"]

    def erase(self, number: int, *, logged: bool = True) -> None:
        """Delete a record past the bin."""
        self.now += dt.timedelta(seconds=1)
        self.purge(number)
        if logged:
            self.tables["Account"].log.append((f"001{number:015}", self.now))

    def put(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            self.write("Account", number, Name=text, **({"Extra__c": "more"} if self.extra else {}))

    def delete(self, number: int) -> None:
        self.now += dt.timedelta(seconds=1)
        self.tables["Account"].records[f"001{number:015}"].update(IsDeleted=True, SystemModstamp=self.now)
        self.tables["Account"].log.append((f"001{number:015}", self.now))

    def drift(self) -> None:
        super().drift()
        self.tables["Account"].types["Extra__c"] = "string"

    def expire(self) -> None:
        raise NotImplementedError

    def number(self, row: Mapping[str, Any]) -> int:
        return int(row["Id"][3:])

    def text(self, row: Mapping[str, Any]) -> str:
        return str(row["Name"])

    def connector(self, *, wrong: bool = False, **fields: Any) -> Salesforce:
        secret = "of-nobody" if wrong else "the-c0nsumer-secret"
        auth = {"kind": "oauth2", "client_id": "app", "client_secret": secret}
        return Salesforce.model_validate({"auth": auth, "instance_url": self.url, **self.settings, **fields})

    def queries(self) -> list[str]:
        """The SOQL that was sent, in order."""
        return [dict(asked.query)["q"] for asked in self.asked if "q" in dict(asked.query)]

    # ---- answers

    def refusal(self, status: int) -> bytes:
        code = {401: "INVALID_SESSION_ID", 429: "TOO_MANY"}.get(status, "UNKNOWN_TROUBLE")
        return self._refusal(status, code, "Session expired or invalid" if status == 401 else "no")

    @staticmethod
    def _refusal(status: int, code: str, message: str) -> bytes:
        return json_answer([{"errorCode": code, "message": message}], status, Retry_After="0")

    def is_for_records(self, asked: Asked) -> bool:
        return "/query" in asked.path and "COUNT()" not in unquote(asked.target)

    def _reply(self, asked: Asked) -> bytes:
        if asked.path == "/services/oauth2/token":
            form = parse_qs(asked.body.decode())
            if form.get("grant_type") != ["client_credentials"] or form.get("client_secret") != ["the-c0nsumer-secret"]:
                return json_answer({"error": "invalid_client", "error_description": "invalid client credentials"}, 400)
            self._access = f"00Dacc3ss-t0ken-{len(self.secrets)}"
            self.secrets = [*self.secrets, self._access]
            return json_answer({"access_token": self._access, "token_type": "Bearer", "instance_url": self.url})
        return super()._reply(asked)

    def answer(self, asked: Asked) -> bytes:
        if self.error is not None and self.is_for_records(asked):
            return self._refusal(*self.error)
        date: dict[str, Any] = {"Date": format_datetime(self.now, usegmt=True), "Sforce_Limit_Info": "api-usage=18/15000"}
        query = dict(asked.query)
        match asked.method, asked.path.removeprefix(BASE).strip("/").split("/"):
            case "GET", [""]:
                return json_answer({"query": f"{BASE}/query"}, **date)
            case "GET", ["limits"]:
                limit = {"Max": 15000, "Remaining": 14982}
                return json_answer({"DailyApiRequests": limit, "DailyBulkV2QueryJobs": limit}, **date)
            case "GET", ["sobjects"]:
                found = [{"name": name, "label": name, "queryable": name != "Hidden"} for name in self.tables]
                return json_answer({"sobjects": found})
            case "GET", ["sobjects", name, "describe"] if name.lower() in map(str.lower, self.tables):  # names have no case
                return json_answer(self._described(next(each for each in self.tables if each.lower() == name.lower())))
            case "GET", ["sobjects", name, "deleted"]:
                return self._log(name, *(dt.datetime.fromisoformat(query[each]) for each in ("start", "end")))
            case "GET", ["query" | "queryAll" as kind]:
                return self._query(query["q"], every=kind == "queryAll")
            case "GET", ["query" | "queryAll", locator]:
                if locator not in self._rest:
                    return self._refusal(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
                return self._page(*self._rest[locator])
            case _, ["jobs", "query", *rest]:
                return self._bulk(asked, rest, query)
            case method, ["sobjects", name, *rest] if name in self.tables and method != "GET":
                return self._change(method, name, rest, body(asked))
        return self._refusal(404, "NOT_FOUND", "The requested resource does not exist")

    def _described(self, name: str) -> dict[str, Any]:
        fields = [
            {"name": each, "type": "double" if type_ == "formula" else type_, "calculated": type_ == "formula"}
            for each, type_ in self.tables[name].types.items()
        ]
        return {"name": name, "queryable": name != "Hidden", "replicateable": "IsDeleted" in self.tables[name].types, "fields": fields}

    def _log(self, name: str, start: dt.datetime, end: dt.datetime) -> bytes:
        if end - start <= dt.timedelta(minutes=1) or start < self.now - dt.timedelta(days=15):
            return self._refusal(400, "INVALID_REPLICATION_DATE", "startDate before org replication enabled date")
        found = [{"id": each, "deletedDate": _json(time)} for each, time in self.tables[name].log if start <= time < end + _MINUTE]
        return json_answer({"deletedRecords": found, "earliestDateAvailable": _json(start), "latestDateCovered": _json(end)})

    def _found(self, soql: str, *, every: bool) -> tuple[list[dict[str, Any]], list[str]]:
        parsed = _SOQL.fullmatch(soql)
        assert parsed, soql
        held_back = ("IsDeleted", "IsArchived")
        found = [each for each in self.tables[parsed["table"]].records.values() if every or not any(map(each.get, held_back))]
        if among := _AMONG.search(parsed["where"] or ""):
            found = [each for each in found if f"'{each['Id']}'" in among["ids"].split(",")]
        if "IsDeleted = false" in (parsed["where"] or ""):
            found = [each for each in found if not each["IsDeleted"]]
        for term in _TERM.finditer(parsed["where"] or ""):
            bound: Any = dt.datetime.fromisoformat(term["time"]) if term["time"] else term["text"]
            held = {">=": operator.ge, ">": operator.gt, "<": operator.lt}[term["op"]]
            found = [each for each in found if held(each[term["field"]], bound)]
        if parsed["order"]:
            found.sort(key=lambda each: each[parsed["order"]])
        return found, re.split(", ?", parsed["fields"])

    def _query(self, soql: str, *, every: bool) -> bytes:
        found, fields = self._found(soql, every=every)
        table = soql.partition(" FROM ")[2].split()[0]
        if fields == ["COUNT()"]:
            return json_answer({"totalSize": len(found), "done": True, "records": []})
        return self._page(found, "queryAll" if every else "query", table, fields)

    def _page(self, found: list[dict[str, Any]], kind: str, table: str, fields: list[str]) -> bytes:
        """The place of a record is that of the time of the query, its values are those of now."""
        about = {"type": table, "url": "/somewhere"}
        page, rest = found[: self.page], found[self.page :]
        rows = [{"attributes": about, **{name: _json(each.get(name)) for name in fields}} for each in page]
        shown: dict[str, Any] = {"totalSize": len(found), "done": not rest, "records": rows}
        if rest:
            locator = f"0r8-{len(self._rest)}"
            self._rest[locator] = (rest, kind, table, fields)
            shown["nextRecordsUrl"] = f"{BASE}/{kind}/{locator}"
        return json_answer(shown)

    # ---- bulk

    def _bulk(self, asked: Asked, rest: list[str], query: Mapping[str, str]) -> bytes:
        if asked.method == "POST":
            wanted = body(asked)
            rows, fields = self._found(wanted["query"], every=wanted["operation"] == "queryAll")
            if not self.tables[wanted["query"].partition(" FROM ")[2].split()[0]].bulk:
                return self._refusal(400, "INVALIDENTITY", "Entity is not supported by the Bulk API")
            name = f"750{self.started:015}"
            self.started += 1
            self.jobs[name] = Job([dict(each) for each in rows], fields, wanted["operation"], self.looks)
            return json_answer({"id": name, "state": "UploadComplete"})
        job = self.jobs.get(rest[0])
        if job is None:
            return self._refusal(404, "NOT_FOUND", "The requested resource does not exist")
        if asked.method == "DELETE":
            del self.jobs[rest[0]]
            self.deleted_jobs.append(rest[0])
            return answer(204)
        if rest[1:] == ["results"]:
            return self._result(job, query)
        job.looks -= 1
        if job.looks < 0 and job.state == "InProgress":
            job.state = "JobComplete"
        return json_answer({"id": rest[0], "state": job.state, "errorMessage": "FIELD: too much"})

    def _result(self, job: Job, query: Mapping[str, str]) -> bytes:
        start = int(query.get("locator", "0"))
        size = min(self.piece, int(query["maxRecords"]))
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        if not (start and self.header_once):
            writer.writerow(job.fields)
        rows = job.rows[start : start + size]
        for row in rows:
            values = [_json(row.get(name)) for name in job.fields]
            writer.writerow(["" if v is None else str(v).lower() if isinstance(v, bool) else v for v in values])
        after = str(start + size) if len(job.rows) > start + size else "null"
        return answer(200, text.getvalue(), Content_Type="text/csv", Sforce_Locator=after, Sforce_NumberOfRecords=str(len(rows)))

    # ---- changes

    def _change(self, method: str, table: str, rest: list[str], fields: Mapping[str, Any]) -> bytes:
        records = self.tables[table].records
        unknown = [name for name in fields if name not in self.tables[table].types]
        if unknown:
            return self._refusal(400, "INVALID_FIELD", f"No such column '{unknown[0]}' on sobject of type {table}")
        if method == "POST":
            return json_answer({"id": self.write(table, len(records) + 1, **fields), "success": True, "errors": []}, 201)
        there = [each for each in records.values() if each.get(rest[0]) == unquote(rest[-1])] if len(rest) == 2 else []
        if len(rest) == 2:
            name = there[0]["Id"] if there else f"001{len(records) + 1:015}"
            self.write(table, int(name[3:]), **{rest[0]: unquote(rest[1])}, **fields)
            return json_answer({"id": name, "success": True, "created": not there}, 200 if there else 201)
        if rest[0] not in records:
            return self._refusal(404, "NOT_FOUND", "The requested resource does not exist")
        if method == "DELETE":
            self.delete(int(rest[0][3:]))
        else:
            self.write(table, int(rest[0][3:]), **fields)
        return answer(204)


def _json(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.000+0000")
    return json.loads(json.dumps(value, default=str))
