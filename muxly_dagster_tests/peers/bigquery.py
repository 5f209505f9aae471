"""A BigQuery on loopback: its REST API with real SQL (by DuckDB), and the token endpoint of a service account.

Rows are read through the Storage Read API, which peers/bigquery_storage.py serves from the same tables. Tables are
in peers/bigquery_tables.py, load jobs and statements that write in peers/bigquery_writes.py.
"""

import functools
import json
import socket
import threading
import uuid
from collections.abc import Callable
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
from muxly_dagster_tests.peers import bigquery_writes as writes
from muxly_dagster_tests.peers.bigquery_sql import Refused
from muxly_dagster_tests.peers.bigquery_tables import PROJECT, Tables, reference

REFRESH_TOKEN = "1//refresh-of-a-user"


@functools.cache
def key_pair(owner: str) -> tuple[str, str]:
    """A private and a public key as PEM, one pair per owner and process."""
    # A short one: each reading of a key checks its primes, and the tests read some hundreds.
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


class Cut(Exception):
    """The connection ends without an answer."""


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
class BigQuery(Tables):
    """Serves its tables (by `dataset.table`) until the block ends. `denied` permissions are refused by name."""

    denied: set[str] = field(default_factory=set)
    exchanges: list[Exchange] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    results: dict[str, pa.Table] = field(default_factory=dict)
    scope_missing: bool = False
    jobs_fail: list[str] = field(default_factory=list)
    """Reasons that the next jobs end with, one each."""
    breaks: list[str] = field(default_factory=list)
    """Kinds of statements (INSERT) that scripts break off at."""
    fail_next: list[tuple[str, Refused]] = field(default_factory=list)
    """What the next requests are refused with, whose path ends so."""
    watch: Callable[[str, str, str], None] | None = None
    """Told of every request, "before" and "after" it is carried out, with its method and path; may raise Cut."""

    def __enter__(self) -> Self:
        # Google's library asks a public address of Google's, in the background, where an account may be used from; here, nobody does.
        boundary = "_is_regional_access_boundary_lookup_required"
        self._hermetic = mock.patch.object(credentials.CredentialsWithRegionalAccessBoundary, boundary, return_value=False)
        self._hermetic.start()
        self._writing = threading.RLock()
        self._uploads: dict[str, tuple[Any, bytes]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                outer._serve(self)

            def do_POST(self) -> None:
                outer._serve(self)

            do_PATCH = do_PUT = do_DELETE = do_POST

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
        headers: dict[str, str] = {}
        sent: Any = None
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        try:
            if parts.path == "/token":
                answer, status = self._token(dict(parse_qsl(body.decode()))), 200
            else:
                self._seen("before", request.command, parts.path)
                if not self.may(request.headers.get("Authorization", "")):
                    raise Refused(401, "authError", "Request had invalid authentication credentials.")
                if self.scope_missing:
                    raise Refused(403, "insufficientPermissions", "Request had insufficient authentication scopes.")
                for end, refused in self.fail_next:
                    if parts.path.endswith(end):
                        self.fail_next.remove((end, refused))
                        raise refused
                if parts.path.startswith("/upload/"):
                    sent, answer, headers = self._upload(request, query, body)
                else:
                    sent = json.loads(body) if body else None
                    path = parts.path.removeprefix("/bigquery/v2/projects/").split("/")
                    with self._writing:
                        answer = self._answer(request.command, path, query, sent, request.headers.get("If-Match", ""))
                status = 204 if answer is None else 200
                self._seen("after", request.command, parts.path)
        except Refused as refused:
            status, answer = refused.status, refused.answer()
        except Cut:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        if parts.path != "/token" and request.command != "PUT":
            served = parts.path.removeprefix("/upload")
            self.exchanges.append(Exchange(request.command, served, list(query), sent, status, answer))
        content = b"" if answer is None else json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    def _seen(self, moment: str, method: str, path: str) -> None:
        if self.watch is not None:
            self.watch(moment, method, path)

    def _upload(self, request: BaseHTTPRequestHandler, query: dict[str, str], body: bytes) -> tuple[Any, Any, dict[str, str]]:
        """A load job with its file: at once (multipart), or begun with a POST and sent by PUTs (resumable)."""
        project = urlsplit(request.path).path.split("/")[5]
        if query["uploadType"] == "multipart":
            sent, content = writes.parts(request.headers["Content-Type"], body)
            with self._writing:
                return sent, self._insert(project, sent, content), {}
        if request.command == "POST":
            mark, sent = uuid.uuid4().hex, json.loads(body)
            self._uploads[mark] = (sent, b"")
            return sent, {}, {"Location": f"{self.url}{urlsplit(request.path).path}?uploadType=resumable&upload_id={mark}"}
        sent, before = self._uploads[query["upload_id"]]
        span, _, size = request.headers["Content-Range"].removeprefix("bytes ").partition("/")
        if int(span.partition("-")[0]) != len(before) or size != str(len(before + body)):
            raise Refused(400, "invalid", f"a part at {span} of {size}, after {len(before)} bytes")
        with self._writing:
            return None, self._insert(project, sent, before + body), {}

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

    def _answer(self, method: str, path: list[str], query: dict[str, str], sent: Any, etag: str) -> Any:
        match method, path:
            case "POST", [project, "jobs"]:
                return self._insert(project, sent)
            case "GET", [_, "jobs", job]:
                if job not in self.jobs or (self.location not in ("EU", "US") and query.get("location") != self.location):
                    raise Refused(404, "notFound", f"Not found: Job {PROJECT}:{job}")
                return self.jobs[job]
            case "GET", [_, "queries", job]:
                return self._results(self.jobs[job], query)
            case "GET", [project, "datasets"]:
                names = sorted({name.partition(".")[0] for name in self.tables} | self.datasets)
                listed = [{"kind": "bigquery#dataset", "id": f"{project}:{n}", "datasetReference": reference(project, n)} for n in names]
                return {"kind": "bigquery#datasetList", "datasets": listed}
            case "GET", [project, "datasets", dataset]:
                self.permits("bigquery.datasets.get", f"Dataset {project}:{dataset}")
                self.has(project, dataset)
                return {"kind": "bigquery#dataset", "datasetReference": reference(project, dataset), "location": self.location}
            case "GET", [project, "datasets", dataset, "tables"]:
                return self.listed(project, dataset)
            case "GET", [project, "datasets", dataset, "tables", table]:
                self.permits("bigquery.tables.get", f"Table {project}:{dataset}.{table}")
                return self.described(project, dataset, table)
            case "POST", [project, "datasets", dataset, "tables"]:
                self.permits("bigquery.tables.create", f"Dataset {project}:{dataset}")
                return self.made(project, dataset, sent)
            case "PATCH", [project, "datasets", dataset, "tables", table]:
                self.permits("bigquery.tables.update", f"Table {project}:{dataset}.{table}")
                return self.patched(project, dataset, table, sent, etag)
            case "DELETE", [_, "datasets", dataset, "tables", table]:
                self.relation(dataset, table)
                del self.tables[f"{dataset}.{table}"]
                return None
            case "POST", [_, "datasets", dataset, "tables", asked] if asked.endswith(":testIamPermissions"):
                self.relation(dataset, asked.partition(":")[0])
                return {"permissions": [name for name in sent["permissions"] if name not in self.denied]}
            case _:
                raise Refused(404, "notFound", f"Not found: {'/'.join(path)}")

    # ---- jobs

    def _insert(self, project: str, sent: dict[str, Any], content: bytes = b"") -> dict[str, Any]:
        configuration = sent["configuration"]
        self.permits("bigquery.jobs.create", f"Project {project}")
        job_id = sent.get("jobReference", {}).get("jobId", uuid.uuid4().hex)
        if job_id in self.jobs:
            raise Refused(409, "duplicate", f"Already Exists: Job {project}:{self.location}.{job_id}")
        job: dict[str, Any] = {
            "kind": "bigquery#job",
            "jobReference": {"projectId": project, "jobId": job_id, "location": self.location},
            "configuration": configuration,
            "status": {"state": "DONE"},
        }
        dry = bool(configuration.get("dryRun"))
        try:
            if not dry and self.jobs_fail:
                raise Refused(400, self.jobs_fail.pop(0), "as the test wants it")
            place = sent.get("jobReference", {}).get("location") or self.location
            if place != self.location and ("load" in configuration or sql.tables_in(configuration["query"]["query"])):
                raise Refused(404, "notFound", f"Not found: Dataset {project}:mart was not found in location {place}")
            if "load" in configuration:
                self.permits("bigquery.tables.updateData", "Table")
                writes.load(self.tables, configuration["load"], content)
                job["statistics"] = {"load": {}}
            else:
                job["statistics"] = self._query(project, configuration["query"], dry=dry)
        except Refused as refused:
            if dry or ("query" in configuration and not writes.is_script(configuration["query"]["query"]) and refused.status != 400):
                raise
            problem = {"reason": refused.reason, "message": refused.message}
            job["status"] |= {"errorResult": problem, "errors": [problem]}
        if not dry:
            self.jobs[job_id] = job
        return job

    def _query(self, project: str, query: dict[str, Any], *, dry: bool) -> dict[str, Any]:
        text, parameters = query["query"], query.get("queryParameters", [])
        if writes.is_script(text):
            if text.startswith("CREATE TABLE"):
                self.permits("bigquery.tables.create", "Dataset")
            else:
                self.permits("bigquery.tables.updateData", "Table")
            made = writes.script(self.tables, text, parameters, dry=dry, breaks=self.breaks)
        else:
            if sql.tables_in(text):
                self.permits("bigquery.tables.getData", "Table")
            made = sql.run(self.tables, text, parameters, dry=dry)
        statistics: dict[str, Any] = {"statementType": made.statement, "totalBytesProcessed": str(made.bytes)}
        if made.rows is not None:
            statistics["schema"] = {"fields": sql.rest_fields(made.rows)}
        limit = int(query.get("maximumBytesBilled", 1 << 60))
        billed = max(made.bytes, 10 << 20) if made.bytes else 0
        if not dry and billed > limit:
            message = f"Query exceeded limit for bytes billed: {limit}. {billed} or higher required."
            raise Refused(400, "bytesBilledLimitExceeded", message)
        if not dry:
            destination = f"anon{uuid.uuid4().hex}"
            self.results[destination] = made.rows if made.rows is not None else pa.table({})
            query["destinationTable"] = reference(project, "_anonymous", destination)
        return {"query": statistics, "totalBytesProcessed": str(made.bytes)}

    def _results(self, job: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        if "errorResult" in job["status"]:
            problem = job["status"]["errorResult"]
            raise Refused(404 if problem["reason"] == "notFound" else 400, problem["reason"], problem["message"])
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
