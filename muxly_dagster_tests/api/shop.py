"""A small project that has run once, and the app that answers for it: a table with odd values, deliveries, one dead letter."""

import contextlib
import datetime as dt
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from muxly_dagster.api.app import create_app
from muxly_dagster.api.service import Service
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.orchestrator import Orchestrator, Run
from muxly_dagster.settings import Settings
from muxly_dagster_tests.http.server import Asked, Server, json_answer

TOKEN = "adm1n-token-of-the-tests"

PROJECT = """
sources:
  shop:
    connector: files
    path: ./data
    pulls:
      orders: {glob: "orders*.csv", key: [id], types: {amount: "decimal(12,2)", number: integer}, freshness: 2h}
      never: {glob: "nothing-*.csv", key: [id]}
transforms:
  customers:
    key: [customer]
    sql: select customer, count(*) as orders, sum(amount) as spent from shop.orders group by customer
routes:
  big_orders:
    from: shop.orders
    description: Orders worth a word.
    rules: [{name: big, when: amount > 100, to: [files, hook]}]
    otherwise: [files]
  customers_out: {from: customers, to: warehouse}
  counted: {from: shop.orders, to: numbers}
destinations:
  files: {type: file, path: ./out, format: ndjson}
  hook: {type: webhook, url: "${HOOK_URL}/hook", retries: {attempts: 1}, allow: [127.0.0.1]}
  warehouse: {type: database, url: "sqlite:///warehouse.db", mode: upsert}
  numbers:
    type: prometheus
    mode: exposition
    metrics:
      - {name: shop_orders, type: counter, help: Orders so far.}
      - {name: muxly_breaker, type: counter, help: A name that is Muxly's.}
jobs:
  everyday: {select: [shop, customers], cron: "@daily"}
"""

ORDERS = """id,customer,amount,number
1001,ada,19.90,9007199254740993
1002,grace,250.00,1
1003,ada,120.50,2
1004,linus,7.25,9223372036854775807
"""


def reply(asked: Asked) -> bytes:
    """A webhook that never takes order 1003."""
    refused = asked.method == "POST" and json.loads(asked.body).get("key") == "1003"
    return json_answer({"message": "no such customer"}, 422) if refused else json_answer({})


class QuietOrchestrator(Orchestrator):
    """Dagster, in which nothing ever ran. `trouble` is what is wrong with it."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.trouble: MuxlyError | None = None

    def submit(self, job: str, run_id: str, tags: Mapping[str, str], select: Sequence[str] = ()) -> None:
        if self.trouble is not None:
            raise self.trouble

    def runs(self, **_: Any) -> list[Run]:
        return []

    def run(self, run_id: str) -> Run | None:
        return None

    def materializations(self, run_id: str) -> list[Any]:
        return []

    def cancel(self, run_id: str) -> None:
        raise ConfigurationError(f"there is no run {run_id}")

    def retry(self, run_id: str) -> str:
        raise ConfigurationError(f"there is no run {run_id}")

    def reload(self) -> None:
        pass

    def heartbeats(self) -> Mapping[str, dt.datetime]:
        if self.trouble is not None:
            raise self.trouble
        return {"SCHEDULER": dt.datetime.now(dt.UTC)}

    def close(self) -> None:
        pass


@dataclass
class Shop:
    """The project's service and app."""

    folder: Path
    service: Service
    app: FastAPI

    def client(self, token: str = TOKEN, *, address: str = "127.0.0.1") -> httpx.AsyncClient:
        """Asks the app in this process."""
        transport = httpx.ASGITransport(self.app, client=(address, 4711))
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(transport=transport, base_url="http://muxly.example", headers=headers)


def write(folder: Path, project: str = PROJECT) -> None:
    """The project's files."""
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "orders.csv").write_text(ORDERS, "utf-8")
    (folder / "muxly.yaml").write_text(project, "utf-8")


def opened(folder: Path, environ: Mapping[str, str], orchestrator: Orchestrator | None = None, **service: Any) -> Shop:
    """The app of the project in a folder."""
    settings = Settings.from_environ(environ, folder)
    found = Service.open(settings, environ, orchestrator or QuietOrchestrator(), **service)
    return Shop(folder, found, create_app(found))


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of the app on a free port of this machine, for clients that want a real server."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off", ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def running(folder: Path, environ: Mapping[str, str] | None = None, project: str = PROJECT) -> Iterator[Shop]:
    """The project after its first runs: order 1003 is a dead letter of big_orders.hook."""
    write(folder, project)
    with Server(reply) as hook:
        shop = opened(folder, {"MUXLY_ADMIN_TOKEN": TOKEN, "MUXLY_RATE_LIMIT": "off", "HOOK_URL": hook.url, **(environ or {})})
        for name in ("shop.orders", "customers", *shop.service.runtime.assembly.targets):
            shop.service.runtime.run(name)
        yield shop
        shop.service.close()
