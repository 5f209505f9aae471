"""A person at the Dagster UI, in a real browser: launches a pull, sees it succeed, sees the receipt, switches a schedule on."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from muxly_dagster_tests.cli.command import COMMAND, clean_environ

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
PATIENCE = 60_000
PROJECT = """
sources: {shop: {connector: files, path: ./data, pulls: [orders]}}
routes: {orders_out: {from: shop.orders, to: [archive]}}
destinations: {archive: {type: file, path: ./out}}
jobs: {nightly: {select: [shop, orders_out], cron: "0 3 * * *", enabled: false}}
"""

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="there is no chromium (Debian's package of that name)"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`muxly dev` on a small project; its UI's address."""
    folder = tmp_path_factory.mktemp("ui")
    (folder / "muxly.yaml").write_text(PROJECT, "utf-8")
    (folder / "data").mkdir()
    (folder / "data" / "orders.jsonl").write_text('{"id": 1, "total": 10}\n{"id": 2, "total": 20}\n', "utf-8")
    log = folder / "log"
    command = [*COMMAND, "dev", "--port", "0", "--api-port", "0"]
    with log.open("wb") as said, subprocess.Popen(command, cwd=folder, env=clean_environ(), stdout=said, stderr=said) as process:
        try:
            yield _address(log, process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        quiet = ["--disable-gpu", "--disable-background-networking", "--disable-quic"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*sandbox, *quiet])
        page = browser.new_page(viewport={"width": 1500, "height": 1100})
        page.set_default_timeout(PATIENCE)
        # A dialogue about Dagster's own news comes at some moment after the first page.
        page.add_locator_handler(page.get_by_text("Skip", exact=True), lambda skip: skip.click())
        yield page
        browser.close()


def test_a_pull_is_launched_and_shows_what_it_did(ui: str, page: Page) -> None:
    _launch(ui, page, "shop/orders")

    page.goto(f"{ui}/assets/shop/orders")
    expect(_value(page, "upserts")).to_have_text("2", timeout=PATIENCE)
    assert "quarantined" in page.content()


def test_a_delivery_is_launched_and_shows_its_receipt(ui: str, page: Page) -> None:
    _launch(ui, page, "orders_out/archive")

    page.goto(f"{ui}/assets/orders_out/archive")
    expect(_value(page, "accepted")).to_have_text("2", timeout=PATIENCE)
    expect(_value(page, "refused")).to_have_text("0")


def test_a_schedule_is_switched_on(ui: str, page: Page) -> None:
    assert _schedule(ui) == "STOPPED"
    page.goto(f"{ui}/automation")
    page.get_by_text("nightly_schedule").first.click()
    switch = page.locator("label").filter(has=page.locator("input[type=checkbox]")).first
    switch.click()
    expect(page.locator("input[type=checkbox]").first).to_be_checked(timeout=PATIENCE)
    assert _schedule(ui) == "RUNNING"


def _launch(ui: str, page: Page, asset: str) -> None:
    """Materialize an asset by its button, and watch its run succeed."""
    page.goto(f"{ui}/assets/{asset}")
    page.get_by_role("button", name="Materialize").first.click()
    launched = page.get_by_text(re.compile("Launched run [0-9a-f]{8}")).inner_text()
    page.goto(f"{ui}/runs")
    page.get_by_role("link", name=f"run {launched.split()[-1]}").first.click()
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=PATIENCE)


def _value(page: Page, key: str) -> Locator:
    """The cell beside a key in the table of metadata."""
    return page.get_by_role("row").filter(has=page.get_by_text(key, exact=True)).get_by_role("cell").last


def _schedule(ui: str) -> str:
    query = "{schedulesOrError(repositorySelector: %s) {... on Schedules {results {name scheduleState {status}}}}}"
    nodes = httpx.post(
        f"{ui}/graphql", json={"query": "{repositoriesOrError {... on RepositoryConnection {nodes {name location {name}}}}}"}
    )
    node = nodes.json()["data"]["repositoriesOrError"]["nodes"][0]
    selector = f'{{repositoryName: "{node["name"]}", repositoryLocationName: "{node["location"]["name"]}"}}'
    answer = httpx.post(f"{ui}/graphql", json={"query": query % selector}, timeout=30).json()
    found = answer["data"]["schedulesOrError"]["results"]
    return next(str(each["scheduleState"]["status"]) for each in found if each["name"] == "nightly_schedule")


def _address(log: Path, process: "subprocess.Popen[bytes]") -> str:
    """Where the UI is, once it answers."""
    deadline = time.monotonic() + PATIENCE / 1000
    while process.poll() is None and time.monotonic() < deadline:
        found = re.search(r"Dagster UI: *(http://\S+)", log.read_text("utf-8"))
        if found:
            try:
                if httpx.get(f"{found[1]}/server_info", timeout=5).is_success:
                    return found[1]
            except httpx.HTTPError:
                pass
        time.sleep(0.3)
    raise AssertionError(log.read_text("utf-8"))
