"""The same pull with airbyte-cdk: a declarative source read to its record messages, which are counted and go nowhere.

usage: airbyte_pull.py BASE_URL NAME:TYPE,...      (in a virtual environment that has `airbyte-cdk`)
"""

import logging
import sys
from typing import Any

from airbyte_cdk.models import (
    AirbyteStream,
    ConfiguredAirbyteCatalog,
    ConfiguredAirbyteStream,
    DestinationSyncMode,
    SyncMode,
    Type,
)
from airbyte_cdk.sources.declarative.concurrent_declarative_source import ConcurrentDeclarativeSource

_JSON_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": ["null", "string"]},
    "number": {"type": ["null", "number"]},
    "datetime": {"type": ["null", "string"], "format": "date-time"},
    "date": {"type": ["null", "string"], "format": "date"},
    "bool": {"type": ["null", "boolean"]},
}


def manifest(base_url: str, properties: dict[str, str]) -> dict[str, Any]:
    """Contacts by the list, 100 a page, their properties typed by the schema."""
    fields = {name: _JSON_TYPES[kind] for name, kind in properties.items()}
    top = {
        "id": _JSON_TYPES["string"],
        "createdAt": _JSON_TYPES["datetime"],
        "updatedAt": _JSON_TYPES["datetime"],
        "archived": _JSON_TYPES["bool"],
    }
    schema = {"type": "object", "properties": {**top, "properties": {"type": "object", "properties": fields}}}
    after = "{{ response.paging.next.after }}"
    stream = {
        "type": "DeclarativeStream",
        "name": "contacts",
        "primary_key": ["id"],
        "schema_loader": {"type": "InlineSchemaLoader", "schema": schema},
        "retriever": {
            "type": "SimpleRetriever",
            "requester": {
                "type": "HttpRequester",
                "url_base": base_url,
                "path": "/crm/objects/2026-09/contacts",
                "http_method": "GET",
                "request_parameters": {"properties": ",".join(properties)},
                "authenticator": {"type": "BearerAuthenticator", "api_token": "benchmark"},
            },
            "record_selector": {
                "type": "RecordSelector",
                "extractor": {"type": "DpathExtractor", "field_path": ["results"]},
                "schema_normalization": "Default",
            },
            "paginator": {
                "type": "DefaultPaginator",
                "page_size_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "limit"},
                "page_token_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "after"},
                "pagination_strategy": {
                    "type": "CursorPagination",
                    "page_size": 100,
                    "cursor_value": after,
                    "stop_condition": "{{ not response.get('paging', {}).get('next') }}",
                },
            },
        },
    }
    return {
        "version": "6.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["contacts"]},
        "streams": [stream],
        "spec": {"type": "Spec", "connection_specification": {"type": "object", "properties": {}}},
    }


def main(base_url: str, properties: dict[str, str]) -> None:
    """Read all contacts and print how many there were."""
    asked = ConfiguredAirbyteStream(
        stream=AirbyteStream(name="contacts", json_schema={}, supported_sync_modes=[SyncMode.full_refresh]),
        sync_mode=SyncMode.full_refresh,
        destination_sync_mode=DestinationSyncMode.append,
    )
    catalog = ConfiguredAirbyteCatalog(streams=[asked])
    source = ConcurrentDeclarativeSource(catalog=catalog, config={}, state=[], source_config=manifest(base_url, properties))
    logger = logging.getLogger("rival")
    print(sum(message.type == Type.RECORD for message in source.read(logger, {}, catalog, [])))


if __name__ == "__main__":
    main(sys.argv[1], dict(pair.split(":") for pair in sys.argv[2].split(",")))
