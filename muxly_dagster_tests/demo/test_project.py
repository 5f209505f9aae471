"""The demo's project on two days: everything arrives on the first, only what changed on the second, and each record once."""

import asyncio
import contextlib
import functools
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson
import pyarrow.dataset
from rich.console import Console

from muxly_dagster.api.metrics import metrics_app
from muxly_dagster.collecting import Lines
from muxly_dagster.demo import data, run_demo
from muxly_dagster.outcome import Outcome
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings
from muxly_dagster.state.posts import Part, Post

collection = functools.cache(data.collection)
PULLS = {
    "crm.contacts": "contacts",
    "crm.companies": "companies",
    "crm.deals": "deals",
    "billing.customers": "customers",
    "billing.invoices": "invoices",
}


def changes(name: str, day: int) -> int:
    """How many records of a collection a day adds, changes or deletes."""
    before = {item.id: item.json for item in collection(name, day - 1)} if day > 1 else {}
    after = {item.id: item.json for item in collection(name, day)}
    return sum(before.get(key) != text for key, text in after.items()) + len(before.keys() - after.keys())


def rows_in(database: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        count: int = connection.execute(f"select count(*) from {table}").fetchone()[0]
    return count


def test_the_first_day_moves_everything_and_the_second_only_what_changed(tmp_path: Path) -> None:
    days: list[dict[str, Outcome]] = []
    hooks: list[dict[str, int]] = []
    chats: list[dict[str, Any]] = []
    metrics: list[str] = []

    def run(environ: Mapping[str, str]) -> int:
        with Runtime.open(Settings.from_environ(environ), environ) as runtime:
            assembly = runtime.assembly
            names = [*assembly.pulls, *assembly.transforms, *assembly.targets]
            post_signup(runtime, f"day-{len(days) + 1}@example.com")
            days.append({name: runtime.run(name, run_id=f"day-{len(days) + 1}") for name in names})
            metrics.append(exposed(runtime))
        chats.append(httpx.get(f"{environ['DEMO_API']}/chat").json())
        hooks.append(httpx.get(f"{environ['DEMO_API']}/hooks").json())
        return 0

    console = Console(quiet=True)
    assert run_demo(tmp_path, console, run) == 0
    assert run_demo(tmp_path, console, run) == 0

    for day, outcomes in enumerate(days, 1):
        assert {pull: outcomes[pull].changed for pull in PULLS} == {pull: changes(name, day) for pull, name in PULLS.items()}
        for name, outcome in outcomes.items():
            if "." in name and name not in (*PULLS, "app.signups"):
                assert outcome.read == outcome.accepted + outcome.refused + outcome.unrouted, name
    assert days[1]["crm.deals"].read < 500, "deals say what changed, so a second day need not read them all"

    assert rows_in(tmp_path / "out" / "demo.db", "billing_invoices") == len(collection("invoices", 2))
    archived = pyarrow.dataset.dataset(tmp_path / "out" / "invoices", format="parquet", exclude_invalid_files=True)
    assert archived.count_rows() == changes("invoices", 1) + changes("invoices", 2)
    assert rows_in(tmp_path / "out" / "demo.db", "app_signups") == 2
    files = sorted((tmp_path / "out" / "signups").rglob("*.ndjson"))
    posted = [orjson.loads(line)["data"] for file in files for line in file.read_bytes().splitlines()]
    assert [event["email"] for event in posted] == ["day-1@example.com", "day-2@example.com"]
    for day, taken in enumerate(hooks):
        assert taken["taken"] == taken["distinct"] == days[day]["big_deals.sales_hook"].accepted
    assert days[0]["big_deals.sales_hook"].refused == 4, "the four deals without a name"
    for day, chat in enumerate(chats):
        told = [int(message.partition(" big deals")[0].removeprefix(":tada: ")) for message in chat["messages"]]
        assert sum(told) == days[day]["big_deals.sales_chat"].accepted and max(told) <= 100, "every big deal stands in one message"
    for day, text in enumerate(metrics, 1):
        counted = re.findall(r'^invoices_total\{[^}]*status="\w+"[^}]*\} ([0-9.]+)$', text, re.MULTILINE)
        assert sum(map(float, counted)) == len({item.id for past in range(1, day + 1) for item in collection("invoices", past)})


def post_signup(runtime: Runtime, email: str) -> None:
    """What the API does with a posted event."""
    runtime.state.inbox.put([Post("app", [Part("signups", Lines([orjson.dumps({"email": email})]), [email])])])


def exposed(runtime: Runtime) -> str:
    """What Prometheus would be shown."""

    async def ask() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(metrics_app(runtime)), base_url="http://muxly") as client:
            return (await client.get("/metrics")).text

    return asyncio.run(ask())
