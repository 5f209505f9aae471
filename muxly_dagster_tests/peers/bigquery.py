"""A BigQuery on loopback: its REST API with real SQL (by DuckDB), and the token endpoint of a service account.

Rows are read through the Storage Read API, which peers/bigquery_storage.py serves from the same tables.
"""

import datetime as dt
import functools
import json
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from unittest import mock
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pyarrow as pa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import credentials, jwt

from muxly_dagster_tests.peers import bigquery_sql as sql
from muxly_dagster_tests.peers.bigquery_sql import Refused, Relation

PROJECT = "lab"
REFRESH_TOKEN = "1//refresh-of-a-user"


@functools.cache
def key_pair(owner: str) -> tuple[str, str]:
    """A private and a public key as PEM, one pair per owner and process."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


@dataclass
class Exchange:
    """One request and its answer."""

    method: str
    path: str
    query: list[str]
    sent: Any
    status: int
    answer: Any


@dataclass
class BigQuery:
    """Serves `tables` (by `dataset.table`) until the block ends. `denied` permissions are refused by name."""

    tables: dict[str, Relation] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    exchanges: list[Exchange] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    results: dict[str, pa.Table] = field(default_factory=dict)
    scope_missing: bool = False
    jobs_fail: list[str] = field(default_factory=list)
    """Reasons that the next jobs end with, one each."""

    def __enter__(self) -> Self:
        # Google's library asks a public address of Google's, in the background, where an account may be used from; here, nobody does.
        boundary = "_is_regional_access_boundary_lookup_required"
        self._hermetic = mock.patch.object(credentials.CredentialsWithRegionalAccessBoundary, boundary, return_value=False)
        self._hermetic.start()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                outer._serve(self)

            def do_POST(self) -> None:
                outer._serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._hermetic.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def key(self, owner: str = "muxly") -> str:
        """A service account's key as JSON text. Only that of `muxly` is accepted."""
        account = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "1",
            "private_key": key_pair(owner)[0],
            "client_email": f"{owner}@{PROJECT}.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }
        return json.dumps(account)

    def put(self, name: str, rows: pa.Table, **facts: Any) -> Relation:
        """A table's rows from now on; what was before can still be read as of its time."""
        relation = self.tables.setdefault(name, Relation())
        relation.versions.append((dt.datetime.now(dt.UTC), rows))
        for fact, value in facts.items():
            setattr(relation, fact, value)
        return relation

    def asked(self, of: str) -> list[Exchange]:
        """Requests whose path ends so."""
        return [exchange for exchange in self.exchanges if exchange.path.endswith(of)]

    def permits(self, permission: str, on: str) -> None:
        """Raises what Google answers where a permission is missing."""
        if permission in self.denied:
            raise Refused(403, "accessDenied", f"Access Denied: {on}: User does not have {permission} permission in {on}.")

    def may(self, authorization: str) -> bool:
        """Whether this header signs in."""
        return authorization.removeprefix("Bearer ") in self.tokens

    # ---- HTTP

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        parts = urlsplit(request.path)
        sent: Any = None
        try:
            if parts.path == "/token":
                answer = self._token(dict(parse_qsl(body.decode())))
            else:
                sent = json.loads(body) if body else None
                if not self.may(request.headers.get("Authorization", "")):
                    raise Refused(401, "authError", "Request had invalid authentication credentials.")
                if self.scope_missing:
                    raise Refused(403, "insufficientPermissions", "Request had insufficient authentication scopes.")
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                answer = self._answer(request.command, parts.path.removeprefix("/bigquery/v2/projects/").split("/"), query, sent)
            status = 200
        except Refused as refused:
            status, answer = refused.status, refused.answer()
        if parts.path != "/token":
            names = list(parse_qs(parts.query))
            self.exchanges.append(Exchange(request.command, parts.path, names, sent, status, answer))
        content = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def _token(self, form: dict[str, str]) -> dict[str, Any]:
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] != REFRESH_TOKEN:
                raise Refused(400, "invalid_grant", "Token has been expired or revoked.")
            return self._granted()
        try:
            jwt.decode(form["assertion"], certs=key_pair("muxly")[1], audience="https://oauth2.googleapis.com/token")
        except ValueError:
            raise Refused(400, "invalid_grant", "Invalid JWT Signature.") from None
        return self._granted()

    def _granted(self) -> dict[str, Any]:
        token = f"ya29.{uuid.uuid4().hex}"
        self.tokens.add(token)
        return {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}

    def _answer(self, method: str, path: list[str], query: dict[str, str], sent: Any) -> Any:
        match method, path:
            case "POST", [project, "jobs"]:
                self.permits("bigquery.jobs.create", f"Project {project}")
                return self._insert(project, sent)
            case "GET", [_, "jobs", job]:
                return self.jobs[job]
            case "GET", [_, "queries", job]:
                return self._results(self.jobs[job], query)
            case "GET", [project, "datasets"]:
                names = sorted({name.partition(".")[0] for name in self.tables})
                listed = [{"kind": "bigquery#dataset", "id": f"{project}:{n}", "datasetReference": _reference(project, n)} for n in names]
                return {"kind": "bigquery#datasetList", "datasets": listed}
            case "GET", [project, "datasets", dataset, "tables"]:
                return self._listed(project, dataset)
            case "GET", [project, "datasets", dataset, "tables", table]:
                self.permits("bigquery.tables.get", f"Table {project}:{dataset}.{table}")
                return self._table(project, dataset, table)
            case _:
                raise Refused(404, "notFound", f"Not found: {'/'.join(path)}")

    # ---- tables

    def relation(self, dataset: str, table: str) -> Relation:
        """A table. Raises as Google answers for one that is not there."""
        if f"{dataset}.{table}" not in self.tables:
            raise Refused(404, "notFound", f"Not found: Table {PROJECT}:{dataset}.{table} was not found in location EU")
        return self.tables[f"{dataset}.{table}"]

    def _listed(self, project: str, dataset: str) -> dict[str, Any]:
        names = [name.partition(".")[2] for name in self.tables if name.startswith(f"{dataset}.")]
        if not names:
            raise Refused(404, "notFound", f"Not found: Dataset {project}:{dataset}")
        listed = [
            {
                "kind": "bigquery#table",
                "id": f"{project}:{dataset}.{name}",
                "tableReference": _reference(project, dataset, name),
                "type": self.tables[f"{dataset}.{name}"].kind,
            }
            for name in sorted(names)
        ]
        return {"kind": "bigquery#tableList", "tables": listed, "totalItems": len(listed)}

    def _table(self, project: str, dataset: str, table: str) -> dict[str, Any]:
        relation = self.relation(dataset, table)
        rows = sql.current(self.tables, relation)
        described = {
            "kind": "bigquery#table",
            "id": f"{project}:{dataset}.{table}",
            "tableReference": _reference(project, dataset, table),
            "type": relation.kind,
            "schema": {"fields": relation.fields or sql.rest_fields(rows)},
            **relation.partitioning,
        }
        if relation.view:
            described["view"] = {"query": relation.view, "useLegacySql": False}
        if relation.key:
            described["tableConstraints"] = {"primaryKey": {"columns": list(relation.key)}}
        return described

    # ---- jobs

    def _insert(self, project: str, sent: dict[str, Any]) -> dict[str, Any]:
        configuration = sent["configuration"]
        query = configuration["query"]
        dry = bool(configuration.get("dryRun"))
        job_id = sent.get("jobReference", {}).get("jobId", uuid.uuid4().hex)
        reference = {"projectId": project, "jobId": job_id, "location": "EU"}
        if sql.tables_in(query["query"]):
            self.permits("bigquery.tables.getData", "Table")
        made = sql.run(self.tables, query["query"], query.get("queryParameters", []), dry=dry)
        statistics: dict[str, Any] = {"statementType": made.statement, "totalBytesProcessed": str(made.bytes)}
        if made.rows is not None:
            statistics["schema"] = {"fields": sql.rest_fields(made.rows)}
        job: dict[str, Any] = {
            "kind": "bigquery#job",
            "jobReference": reference,
            "configuration": configuration,
            "status": {"state": "DONE"},
            "statistics": {"query": statistics, "totalBytesProcessed": str(made.bytes)},
        }
        limit = int(query.get("maximumBytesBilled", 1 << 60))
        billed = max(made.bytes, 10 << 20) if made.bytes else 0
        if not dry and billed > limit:
            message = f"Query exceeded limit for bytes billed: {limit}. {billed} or higher required."
            problem = {"reason": "bytesBilledLimitExceeded", "message": message}
            job["status"] |= {"errorResult": problem, "errors": [problem]}
        if not dry and self.jobs_fail:
            problem = {"reason": self.jobs_fail.pop(0), "message": "as the test wants it"}
            job["status"] |= {"errorResult": problem, "errors": [problem]}
        if not dry:
            destination = f"anon{uuid.uuid4().hex}"
            self.results[destination] = made.rows if made.rows is not None else pa.table({})
            configuration["query"]["destinationTable"] = _reference(project, "_anonymous", destination)
            self.jobs[job_id] = job
        return job

    def _results(self, job: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        if "errorResult" in job["status"]:
            problem = job["status"]["errorResult"]
            raise Refused(400, problem["reason"], problem["message"])
        rows = self.results[job["configuration"]["query"]["destinationTable"]["tableId"]]
        answer: dict[str, Any] = {
            "kind": "bigquery#getQueryResultsResponse",
            "jobReference": job["jobReference"],
            "jobComplete": True,
            "totalRows": str(len(rows)),
            "schema": {"fields": sql.rest_fields(rows)},
        }
        if query.get("maxResults") != "0":
            answer["rows"] = sql.rest_rows(rows)
        return answer


def _reference(project: str, dataset: str, table: str = "") -> dict[str, str]:
    reference = {"projectId": project, "datasetId": dataset}
    return reference | {"tableId": table} if table else reference
