"""The full example (docs/examples/full): a company with a source for every connector, checked, run and loaded by Dagster."""

import datetime as dt
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
import yaml

from muxly_dagster import catalog
from muxly_dagster.assembly import load_assembly, select, upstream
from muxly_dagster.cli.beginning import variables
from muxly_dagster.collecting import Gathered
from muxly_dagster.http import Http, Retries
from muxly_dagster.intake import Call
from muxly_dagster.settings import Settings
from muxly_dagster.state import State
from muxly_dagster.state.posts import Part, Post
from muxly_dagster.state.starts import Start
from muxly_dagster_tests.bad_input.test_answers import free_port
from muxly_dagster_tests.cli.command import MuxlyHere, clean_environ
from muxly_dagster_tests.cli.company import EXAMPLE, Company, company, write_example
from muxly_dagster_tests.peers.postgres import fresh_database

FOREIGN = {"airbyte", "dlt"}
"""They run what was written for other programs, in environments of their own, which an example that anybody can run does not have."""

DECLARED: dict[str, Any] = yaml.safe_load((EXAMPLE / "muxly.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def fjordkit(postgres_url: str) -> Iterator[Company]:
    with fresh_database(postgres_url) as shop, fresh_database(postgres_url) as warehouse, company(shop, warehouse) as found:
        yield found


@pytest.fixture
def muxly(fjordkit: Company, tmp_path: Path) -> Iterator[MuxlyHere]:
    """The command in a copy of the example. Whatever it said and left behind holds no secret."""
    found = MuxlyHere(write_example(tmp_path / "fjordkit"), fjordkit.environ)
    yield found
    secrets = fjordkit.secrets
    assert not [said for said in found.said if any(secret in said for secret in secrets)]
    left = [path for path in found.folder.rglob("*") if path.is_file()]
    assert not [path for path in left if any(secret.encode() in path.read_bytes() for secret in secrets)]


@pytest.fixture
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many attempts as ever, but no pause between them."""
    defaults = Http.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "retries", Retries(base=0))


def connections(checked: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["status"] for each in checked["connections"]}


def test_it_has_a_source_for_every_connector() -> None:
    used = {source["connector"] for source in DECLARED["sources"].values() if isinstance(source["connector"], str)}
    assert {*catalog.connector_names()} - FOREIGN | {"./helpdesk.yaml"} == used
    assert [name for name, source in DECLARED["sources"].items() if isinstance(source["connector"], dict)] == ["parcels"]


def test_the_environments_example_lists_what_it_needs() -> None:
    lines = (EXAMPLE / ".env.example").read_text("utf-8").splitlines()
    listed = [line.partition("=")[0] for line in lines if line and not line.startswith("#")]
    assert sorted(listed) == sorted(variables((EXAMPLE / "muxly.yaml").read_text("utf-8")))
    assert not [line for line in lines if not line.startswith("#") and not line.endswith("=") and line], "a value where none belongs"


def test_its_jobs_leave_nothing_out(fjordkit: Company, tmp_path: Path) -> None:
    assembly = load_assembly(write_example(tmp_path / "fjordkit") / "muxly.yaml", fjordkit.environ)
    assert set(select(assembly, [*assembly.jobs])) == {*assembly.pulls, *assembly.transforms, *assembly.targets}


def test_every_connection_is_tried_and_reported(muxly: MuxlyHere) -> None:
    done = muxly("check", "--json")
    assert done.code == 0, done.all
    found = connections(done.json)
    assert set(found.values()) == {"ok"}
    assert {name for name in found if name.startswith("source ")} == {f"source {name}" for name in DECLARED["sources"]}
    assert {name for name in found if name.startswith("destination ")} == {"destination warehouse", "destination archive"}
    assert {"pull crm.deals", "pull wholesale.accounts", "pull web.visits", "pull ads.spend"} <= found.keys()


def test_a_wrong_credential_and_a_server_that_is_away_hide_nothing_else(muxly: MuxlyHere, without_waiting: None) -> None:
    whole = connections(muxly("check", "--json").json)
    muxly.environ = muxly.environ | {"HUBSPOT_TOKEN": "pat-eu1-of-nobody"}
    muxly.environ["MUXLY__SOURCES__PHOTOS__BASE_URL"] = f"http://127.0.0.1:{free_port()}/2"
    done = muxly("check", "--json")
    assert done.code == 1, done.all
    found = connections(done.json)
    failed = {each["name"]: (each["what"], each["do"]) for each in done.json["connections"] if each["status"] == "failed"}
    assert failed.keys() == {"source crm", "source photos"}
    assert "the credentials were refused" in failed["source crm"][0] and "private app's token anew" in failed["source crm"][1]
    assert "no connection could be made" in failed["source photos"][0] and "check base_url, the network" in failed["source photos"][1]
    assert {name for name, status in found.items() if status == "ok"} == {
        name for name in whole if name not in failed and not name.startswith("pull crm.")
    }
    told = muxly("check")
    assert told.code == 1
    assert "private app's token anew" in told.out and "→ check base_url, the network" in told.out
    assert "pat-eu1-of-nobody" not in "".join(muxly.said)


def test_offline_it_asks_nobody(muxly: MuxlyHere) -> None:
    nowhere = {name: f"http://127.0.0.1:{free_port()}" for name in muxly.environ if name.startswith("MUXLY__")}
    muxly.environ = muxly.environ | nowhere
    done = muxly("check", "--offline", "--json")
    assert (done.code, done.json["connections"]) == (0, []), done.all
    assert not (muxly.folder / ".muxly" / "state.db").exists()


def posted(muxly: MuxlyHere) -> None:
    """What the API would have taken: a cart, one that its schema does not allow, and a call of the carrier."""
    settings = Settings.from_environ(clean_environ() | {"MUXLY_PROJECT": str(muxly.folder)})
    state = State.open(settings.database_url, settings.home)
    cart = Gathered("carts", [b'{"cart_id": "c-1", "total": 438.5}'], ["c-1"])
    state.inbox.put([Post("app", [Part.of("app", cart, [('{"cart_id": "c-2"}', "total is missing")])])])
    call = Call(0, str(uuid.uuid4()), "on_parcel", "scan-1", dt.datetime.now(dt.UTC), {}, "", b'{"number": "P1", "place": "Bergen"}')
    state.calls.put(call, Start(str(uuid.uuid4()), "on_parcel", "webhook", call.received_at))
    state.close()


def test_a_run_delivers_from_every_source(muxly: MuxlyHere, fjordkit: Company) -> None:
    posted(muxly)
    done = muxly("run", "*", "--json")
    assert done.code == 0, done.all
    reports = {report["asset"]: report for report in done.json}
    assert not [report for report in reports.values() if report["read"] == 0]
    assert {name: report["refused"] for name, report in reports.items() if report["refused"]} == {"app.carts": 1}
    delivered = {name for name, report in reports.items() if report["accepted"]}
    assert delivered == {name for name in reports if name.endswith((".warehouse", ".archive"))}
    assembly = load_assembly(muxly.folder / "muxly.yaml", fjordkit.environ)
    sources = {assembly.pulls[name].source for target in delivered for name in upstream(assembly, target) if name in assembly.pulls}
    assert sources == DECLARED["sources"].keys(), "a source from which nothing is delivered"

    with psycopg.connect(fjordkit.warehouse) as connection:
        customers = connection.execute("select email, stage, orders, spent::text, open_tickets from customers order by email").fetchall()
        parcels = connection.execute("select number, weight_kg::text from parcels_parcels order by number").fetchall()
        prices = connection.execute("select price::text from prices_price_list where sku = 'TENT-2' order by valid_from").fetchall()
        deals = connection.execute("select dealname from crm_deals order by id").fetchall()
    assert customers == [("ada@shop.example", "customer", 2, "438.50", 2), ("grace@shop.example", None, 1, "549.00", 0)]
    assert parcels == [("P1", "1.250"), ("P2", "1.250"), ("P3", "1.250")]
    assert prices == [("349.00",), ("329.00",)]
    assert deals == [("Scouts",), ("School",)]
    [large] = _rows(muxly.folder / "archive" / "large_deals")
    assert large["dealname"] == "Scouts"
    [lease] = _rows(muxly.folder / "archive" / "contracts_items")
    assert Path(lease["content_url"].removeprefix("file://")).read_bytes() == b"We rent the hall."
    assert {row["name"] for row in _rows(muxly.folder / "archive" / "photos_files")} == {"tent.jpg"}
    assert [(row["cart_id"], row["total"]) for row in _rows(muxly.folder / "archive" / "app_carts")] == [("c-1", 438.5)]
    assert [row["delivery_id"] for row in _rows(muxly.folder / "archive" / "carrier_calls_scans")] == ["scan-1"]


def test_dagster_loads_it(muxly: MuxlyHere) -> None:
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-m", "muxly_dagster.definitions"]
    environ = clean_environ() | muxly.environ | {"DAGSTER_HOME": str(muxly.folder)}
    done = subprocess.run(command, cwd=muxly.folder, env=environ, capture_output=True, text=True, timeout=120, check=False)
    muxly.said.append(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
