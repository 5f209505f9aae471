"""A project with secrets, a failing source and a choosy webhook, run once for the tests that only look."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from muxly_dagster_tests.cli.command import Muxly
from muxly_dagster_tests.http.server import Asked, Server, json_answer

SECRETS = {"SHOP_TOKEN": "s3cr3t-token-4711", "SHOP_PASSWORD": "s3cr3t-password-0815", "HOOK_KEY": "s3cr3t-hook-key-42"}

PROJECT = """
sources:
  shop:
    connector: files
    path: ./data
    pulls:
      orders: {glob: "orders*.csv", key: [id], types: {amount: "decimal(12,2)"}}
  api:
    connector: ./api.yaml
    base_url: "${API_URL}"
    auth: {kind: bearer, token: "${SHOP_TOKEN}"}
    pulls: [things]
  broken:
    connector: sql
    url: "postgresql://reader:${SHOP_PASSWORD}@127.0.0.1:1/shop"
    pulls: [users]
transforms:
  customers:
    key: [customer]
    sql: select customer, count(*) as orders, sum(amount) as spent from shop.orders group by customer
  active_users: {key: [id], sql: select * from broken.users}
routes:
  big_orders:
    from: shop.orders
    rules: [{name: big, when: amount > 100, to: [files, hook]}]
  customers_out: {from: customers, to: warehouse}
  things_out: {from: api.things, to: files}
destinations:
  files: {type: file, path: ./out, format: ndjson}
  hook:
    type: webhook
    url: "${API_URL}/hook"
    auth: {kind: api_key, key: "${HOOK_KEY}"}
    retries: {attempts: 1}
    allow: [127.0.0.1]
  warehouse: {type: database, url: "sqlite:///warehouse.db", mode: mirror}
jobs:
  everyday: {select: [shop, customers, customers_out, big_orders], cron: "@daily"}
"""

MANIFEST = """
muxly: 1
id: api
version: 1.0.0
title: An API
hosts: [127.0.0.1]
base_url: http://127.0.0.1:1
auth: [bearer]
check: {path: /things}
streams:
  things:
    request: {path: /things}
    records: $.data
    key: [id]
    sync: {kind: full}
"""

ORDERS = "id,customer,amount\n1001,ada,19.90\n1002,grace,250.00\n1003,ada,120.50\n1004,linus,7.25\n"


def reply(asked: Asked) -> bytes:
    """Things for whoever has the token; a webhook that never takes order 1003."""
    if asked.path == "/things":
        if asked.headers.get("authorization") != f"Bearer {SECRETS['SHOP_TOKEN']}":
            return json_answer({"message": f"bad token {asked.headers.get('authorization')}"}, 401)
        return json_answer({"data": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]})
    if asked.method == "POST" and json.loads(asked.body)["key"] == "1003":
        return json_answer({"message": f"no such customer; your key is {asked.headers.get('x-api-key')}"}, 422)
    return json_answer({})


def write_project(folder: Path) -> None:
    """The project's files."""
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "orders.csv").write_text(ORDERS, "utf-8")
    (folder / "muxly.yaml").write_text(PROJECT, "utf-8")
    (folder / "api.yaml").write_text(MANIFEST, "utf-8")


@pytest.fixture(scope="module")
def api() -> Iterator[Server]:
    """The API and the webhook."""
    with Server(reply) as server:
        yield server


@pytest.fixture
def shop(tmp_path: Path, api: Server) -> Muxly:
    """The command in a project of the test's own that never ran."""
    write_project(tmp_path / "shop")
    return Muxly(tmp_path / "shop", SECRETS | {"API_URL": api.url})


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, api: Server) -> Muxly:
    """The command in a project that ran once; for tests that only look."""
    folder = tmp_path_factory.mktemp("ran") / "shop"
    write_project(folder)
    muxly = Muxly(folder, SECRETS | {"API_URL": api.url})
    assert muxly("run", "everyday", "api", "things_out").code == 0
    return muxly
