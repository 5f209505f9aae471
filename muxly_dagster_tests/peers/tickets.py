"""A desk of tickets: a list by pages, which can be asked for what changed since a time. For connectors that others' libraries speak for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from muxly_dagster.connector import Connector
from muxly_dagster.connectors.airbyte import Airbyte
from muxly_dagster.connectors.dlt import Dlt
from muxly_dagster_tests.http.server import Asked, json_answer
from muxly_dagster_tests.peers.service import Service, paged

ROOT = Path(__file__).parents[2]
AIRBYTE = ROOT / ".venv-airbyte" / "bin" / "python"
DLT = ROOT / ".venv-bench" / "bin" / "python"
HOW = "`make .venv-airbyte/.ready .venv-bench/.ready` makes the environments"

_DAY = "2026-03-01T00:%02d:%02dZ"


class Desk(Service):
    """The account. Every change of a ticket takes a second."""

    page = 3

    def __init__(self) -> None:
        super().__init__()
        self.tickets: dict[int, dict[str, Any]] = {}
        self.clock = 0
        self.pull: Mapping[str, Any] = {"stream": "tickets"}

    def put(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            self.clock += 1
            more = {"mood": text} if self.extra else {}
            time = _DAY % divmod(self.clock, 60)
            self.tickets[number] = {"id": number, "subject": text, "updated_at": time, "tags": ["a", {"b": 1}], "price": 1.5, **more}

    def delete(self, number: int) -> None:
        del self.tickets[number]

    def number(self, row: Mapping[str, Any]) -> int:
        return int(row["id"])

    def text(self, row: Mapping[str, Any]) -> str:
        return str(row["subject"])

    def expire(self) -> None:
        """There are no tokens of changes."""

    def is_for_records(self, asked: Asked) -> bool:
        return asked.path == "/tickets"

    def answer(self, asked: Asked) -> bytes:
        query = dict(asked.query)
        if not self.is_for_records(asked):
            return json_answer({"name": "desk"})
        found = [ticket for ticket in self.tickets.values() if ticket["updated_at"] >= query.get("since", "")]
        found.sort(key=lambda ticket: (ticket["updated_at"], ticket["id"]))
        tickets, after = paged(found, int(query.get("after") or 0), self.page)
        return json_answer({"tickets": tickets, "next": after})


class AirbyteDesk(Desk):
    """The desk, read by a low-code manifest in a folder."""

    def __init__(self, folder: Path, **stream: Any) -> None:
        super().__init__()
        self.folder, self.stream = folder, stream

    def connector(self, *, wrong: bool = False, **fields: Any) -> Connector:
        path = self.folder / "desk.yaml"
        path.write_text(yaml.safe_dump(desk_manifest(**self.stream)), "utf-8")
        given = {
            "manifest": str(path),
            "config": {"base_url": self.url},
            "secrets": {"credentials.token": "wr0ng-t0ken" if wrong else self._access},
            "python": str(AIRBYTE),
        }
        return Airbyte.model_validate(given | fields)


class DltDesk(Desk):
    """The desk, read by a dlt source in a folder."""

    def __init__(self, folder: Path, disposition: str = "replace") -> None:
        super().__init__()
        self.folder, self.disposition = folder, disposition
        self._made: dict[bool, Connector] = {}

    def connector(self, *, wrong: bool = False, **fields: Any) -> Connector:
        """The same one every time, as a project has it."""
        if wrong not in self._made:
            self._made[wrong] = self._connector(wrong, fields)
        return self._made[wrong]

    def _connector(self, wrong: bool, fields: Mapping[str, Any]) -> Connector:
        (self.folder / "desk.py").write_text(_DLT_SOURCE, "utf-8")
        given = {
            "source": f"{self.folder}/desk:desk",
            "arguments": {"base_url": self.url, "disposition": self.disposition},
            "secrets": {"token": "wr0ng-t0ken" if wrong else self._access},
            "python": str(DLT),
        }
        return Dlt.model_validate(given | dict(fields))


def desk_manifest(*, incremental: bool = False, **more: Any) -> dict[str, Any]:
    """The desk as a low-code manifest: its stream `tickets` by reference, its pages by a cursor."""
    properties = {
        "id": {"type": "integer"},
        "subject": {"type": ["null", "string"]},
        "updated_at": {"type": "string", "format": "date-time"},
        "tags": {"type": "array"},
    }
    retriever = {
        "type": "SimpleRetriever",
        "requester": {
            "type": "HttpRequester",
            "url_base": "{{ config['base_url'] }}",
            "path": "/tickets",
            "http_method": "GET",
            "authenticator": {"type": "BearerAuthenticator", "api_token": "{{ config['credentials']['token'] }}"},
            "error_handler": {
                "type": "DefaultErrorHandler",
                "backoff_strategies": [{"type": "ConstantBackoffStrategy", "backoff_time_in_seconds": 0.01}],
            },
        },
        "record_selector": {"type": "RecordSelector", "extractor": {"type": "DpathExtractor", "field_path": ["tickets"]}},
        "paginator": {
            "type": "DefaultPaginator",
            "page_token_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "after"},
            "pagination_strategy": {
                "type": "CursorPagination",
                "cursor_value": "{{ response.get('next') }}",
                "stop_condition": "{{ not response.get('next') }}",
            },
        },
    }
    stream: dict[str, Any] = {
        "type": "DeclarativeStream",
        "name": "tickets",
        "primary_key": ["id"],
        "schema_loader": {"type": "InlineSchemaLoader", "schema": {"type": "object", "properties": properties}},
        "retriever": retriever,
    }
    if incremental:
        stream["incremental_sync"] = {
            "type": "DatetimeBasedCursor",
            "cursor_field": "updated_at",
            "datetime_format": "%Y-%m-%dT%H:%M:%SZ",
            "start_datetime": "2026-01-01T00:00:00Z",
            "start_time_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "since"},
        }
    return {
        "version": "6.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["tickets"]},
        "definitions": {"tickets": stream},
        "streams": [{"$ref": "#/definitions/tickets"}],
        "spec": {
            "type": "Spec",
            "connection_specification": {"type": "object", "required": ["base_url"], "properties": {"base_url": {"type": "string"}}},
        },
        **json.loads(json.dumps(more)),
    }


_DLT_SOURCE = '''
"""The desk, read with dlt's own REST client."""

import dlt
from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.auth import BearerTokenAuth
from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator


@dlt.source
def desk(base_url: str, token: str = dlt.secrets.value, disposition: str = "replace"):
    client = RESTClient(base_url, auth=BearerTokenAuth(token), paginator=JSONResponseCursorPaginator("next", "after"))

    @dlt.resource(primary_key="id", write_disposition="replace", columns={"updated_at": {"data_type": "timestamp"}})
    def tickets():
        print("a word that is no message")
        yield from client.paginate("/tickets", data_selector="tickets")

    @dlt.resource(name="tickets", primary_key="id", write_disposition="merge")
    def news(updated=dlt.sources.incremental("updated_at", initial_value="2026-01-01T00:00:00Z")):
        yield from client.paginate("/tickets", params={"since": updated.last_value}, data_selector="tickets")

    return tickets if disposition == "replace" else news
'''
