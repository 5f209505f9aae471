"""Two manifests that use the language as a whole: a mail box told by history, and a CRM searched by window and keyset."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from muxly_dagster.connector import Connector
from muxly_dagster.manifest.connector import load_manifest
from muxly_dagster_tests.http.server import Asked, Server, json_answer
from muxly_dagster_tests.manifest.conftest import ids, pull

MAIL = """
muxly: 1
id: mail
version: 1.0.0
title: Mail
hosts: [127.0.0.1, accounts.mail.example, oauth2.mail.example]
base_url: "${config.base_url}"
auth:
  user:
    kind: oauth2
    authorize_url: https://accounts.mail.example/auth
    token_url: https://oauth2.mail.example/token
    authorize_params: {access_type: offline, prompt: consent}
    scopes: {read: https://www.mail.example/auth/mail.readonly}
    default_scopes: [read]
  nobody: {kind: none}
config:
  query: {type: string, default: "", title: Search filter}
check: {path: /profile, account: $.emailAddress}
limits: [{per_second: 400, concurrency: 8}]
errors:
  - {status: 403, when: "body.error.errors[0].reason == 'rateLimitExceeded'", do: retry, as: rate_limit, wait: backoff}
  - {status: 401, do: refresh_auth, as: auth}
streams:
  things:
    request: {path: /messages, query: {q: "${config.query}"}}
    records: $.messages
    records_optional: true
    key: [id]
    paging: {kind: cursor, next: $.nextPageToken, into: query.pageToken, size: [query.maxResults, 500]}
    enrich:
      - {request: {path: "/messages/${key}", query: {format: full}}, key: id, into: $}
    types: {internalDate: epoch_ms, historyId: string}
    sync:
      kind: delta
      seed: "check:$.historyId"
      token: $.historyId
      request: {path: /history, query: {startHistoryId: "${token}"}}
      paging: {kind: cursor, next: $.nextPageToken, into: query.pageToken}
      records: $.history[*].messagesAdded[*].message
      deletes: $.history[*].messagesDeleted[*].message.id
      expired: ["404"]
actions:
  send:
    request: {method: POST, path: /messages/send, json: {raw: "${input.raw}"}}
    input: {raw: {type: string}}
"""

CRM = """
muxly: 1
id: crm
version: 1.0.0
title: CRM
hosts: [127.0.0.1]
base_url: "${config.base_url}"
api_version: 2026-09
config:
  objects: {type: list, default: [contacts, deals]}
  lag: {type: duration, default: 1s}
streams:
  things:
    for_each: {in: config.objects, as: object, add: {object: "${object}"}}
    title: Objects
    request:
      method: POST
      path: "/crm/objects/${api_version}/${object}/search"
      json:
        properties: "${schema.names}"
        sorts: [{propertyName: hs_object_id, direction: ASCENDING}]
        filterGroups:
          - filters:
              - {propertyName: modified, operator: BETWEEN, value: "${window.start|ms}", highValue: "${window.end|ms}"}
              - {propertyName: hs_object_id, operator: GT, value: "${keyset}"}
    records: $.results
    key: [object, id]
    flatten: [properties]
    types: {modified: timestamp}
    paging: {kind: keyset, by: id, into: keyset, size: [json.limit, 2]}
    sync: {kind: cursor, field: properties.modified, start: 2020-01-01, lag: "${config.lag}", window: 20000d}
    deletes:
      request: {path: "/crm/objects/${api_version}/${object}", query: {archived: true}}
      records: $.results
      key: [$.id]
    schema: {request: {path: "/crm/properties/${api_version}/${object}"}, records: $.results, name: $.name, type: $.type}
    contract: evolve
"""


def connector(tmp_path: Path, text: str, url: str, **fields: Any) -> Connector:
    (tmp_path / "it.yaml").write_text(text)
    return load_manifest(tmp_path / "it.yaml")(base_url=url, **fields)


def test_a_mail_box(tmp_path: Path) -> None:
    def reply(asked: Asked) -> bytes:
        query = dict(asked.query)
        match asked.path:
            case "/profile":
                return json_answer({"emailAddress": "me@mail.example", "historyId": "100"})
            case "/messages":
                assert "q" not in query or query["q"] == ""
                return json_answer({"messages": [{"id": "m1"}, {"id": "m2"}]})
            case "/history" if query["startHistoryId"] == "100":
                added = [{"message": {"id": name}} for name in ("m3", "m4")]
                gone = [{"message": {"id": "m1"}}, {"message": {"id": "m4"}}]
                return json_answer({"history": [{"messagesAdded": added}, {"messagesDeleted": gone}], "historyId": "200"})
            case "/history":
                return json_answer({"historyId": "200"})
        name = asked.path.removeprefix("/messages/")
        if name == "m4":
            return json_answer({"error": "not found"}, 404)
        return json_answer({"id": name, "internalDate": "1700000000000", "historyId": "7", "payload": {"headers": []}})

    with Server(reply) as server:
        mail = connector(tmp_path, MAIL, server.url, auth={"kind": "none"})
        first = pull(mail)
        assert [r["payload"] for b in first for r in b.rows.to_pylist()] == ['{"headers": []}'] * 2
        assert first[-1].cursor == {"token": "100"}
        second = pull(mail, first[-1].cursor)
        assert ids(second) == ["m3"]
        assert [b.deletes.to_pylist() for b in second if b.deletes is not None] == [[{"id": "m1"}, {"id": "m4"}]]
        assert second[-1].cursor == {"token": "200"}
        assert ids(pull(mail, second[-1].cursor)) == []
        assert mail.metadata().account == "me@mail.example"
        assert [action.name for action in mail.actions()] == ["send"]


def test_a_crm(tmp_path: Path) -> None:
    records = {
        "contacts": [{"id": str(n), "properties": {"modified": "2024-01-01T00:00:00Z", "email": f"{n}@x"}} for n in (9, 10, 11)],
        "deals": [{"id": "9", "properties": {"modified": "2024-01-02T00:00:00Z", "amount": "1.50"}}],
    }

    def reply(asked: Asked) -> bytes:
        _, _, kind, version, name, *_ = asked.path.split("/")
        assert version == "2026-09"
        if kind == "properties":
            fields = {"contacts": [("email", "string")], "deals": [("amount", "number")]}[name]
            return json_answer({"results": [{"name": n, "type": t} for n, t in [*fields, ("modified", "datetime")]]})
        if asked.method == "GET":
            return json_answer({"results": [{"id": "5"}] if name == "deals" else []})
        body = json.loads(asked.body)
        assert body["properties"] == [{"contacts": "email", "deals": "amount"}[name], "modified"]
        filters = body["filterGroups"][0]["filters"]
        assert isinstance(filters[0]["value"], int)
        after = int(filters[1]["value"]) if len(filters) > 1 else 0
        return json_answer({"results": [r for r in records[name] if int(r["id"]) > after][: body["limit"]]})

    with Server(reply) as server:
        batches = pull(connector(tmp_path, CRM, server.url))
    found = [(row["object"], row["id"]) for b in batches for row in b.rows.to_pylist()]
    assert found == [("contacts", "9"), ("contacts", "10"), ("contacts", "11"), ("deals", "9")]
    assert [b.rows["amount"][0].as_py() for b in batches if "amount" in b.rows.column_names] == [Decimal("1.5")]
    assert [b.deletes.to_pylist() for b in batches if b.deletes is not None] == [[{"object": "deals", "id": "5"}]]
    ends = {"contacts": {"value": "2024-01-01T00:00:00Z"}, "deals": {"value": "2024-01-02T00:00:00Z"}}
    assert [b.cursor for b in batches if b.cursor][-1] == {"places": ends}


def test_a_source_of_the_mail_box_says_how_it_signs_in(tmp_path: Path) -> None:
    given = {"kind": "oauth2", "client_id": "c", "client_secret": "s3cret", "refresh_token": "r3fresh"}
    mail = connector(tmp_path, MAIL, "http://127.0.0.1:1", auth=given)
    assert "s3cret" not in repr(mail)
    assert "r3fresh" not in repr(mail)
    with pytest.raises(ValueError, match="auth"):
        connector(tmp_path, MAIL, "http://127.0.0.1:1", auth={"kind": "bearer", "token": "t"})
    assert yaml.safe_load(MAIL)["id"] == mail.id
