"""Alive and ready: what is wrong is told with 503, in full to administrators only."""

import shutil
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster_tests.api.shop import PROJECT, TOKEN, QuietOrchestrator, Shop, opened

Run = Callable[[Any], Any]


async def ready(shop: Shop, token: str = TOKEN, **params: Any) -> httpx.Response:
    async with shop.client(token) as client:
        return await client.get("/readyz", params=params)


def statuses(answer: httpx.Response) -> dict[str, str]:
    return {check["name"]: check["status"] for check in answer.json()["checks"]}


def test_all_is_well(shop: Shop, run: Run) -> None:
    answer = run(ready(shop, ""))
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert statuses(answer) == {"state": "ok", "lake": "ok", "project": "ok", "orchestrator": "ok"}


def test_a_process_lives_whatever_is_wrong(own_shop: Shop, run: Run) -> None:
    async def alive() -> httpx.Response:
        async with own_shop.client("") as client:
            return await client.get("/healthz")

    own_shop.service.close()
    shutil.rmtree(own_shop.folder)
    answer = run(alive())
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_dagster_that_cannot_be_reached_is_told(own_shop: Shop, run: Run) -> None:
    orchestrator = own_shop.service.orchestrator
    assert isinstance(orchestrator, QuietOrchestrator)
    orchestrator.trouble = RetryLater("Dagster's storage at db.internal does not answer", do="start it")
    told = run(ready(own_shop))
    assert told.status_code == 503 and told.json()["status"] == "failed" and statuses(told)["orchestrator"] == "failed"
    assert told.json()["checks"][3]["what"] == "Dagster's storage at db.internal does not answer"
    stranger = run(ready(own_shop, ""))
    assert stranger.status_code == 503 and statuses(stranger)["orchestrator"] == "failed"
    assert "db.internal" not in stranger.text and "start it" not in stranger.text
    left_out = run(ready(own_shop, exclude=["orchestrator", "project"]))
    assert left_out.status_code == 200 and statuses(left_out)["orchestrator"] == "skipped"


def test_dagster_is_not_needed_where_nothing_is_to_be_run(own_shop: Shop, run: Run) -> None:
    (own_shop.folder / "muxly.yaml").write_text(PROJECT.partition("jobs:")[0], "utf-8")
    orchestrator = QuietOrchestrator()
    orchestrator.trouble = RetryLater("nobody there")
    bare = opened(own_shop.folder, own_shop.service.environ, orchestrator)
    try:
        answer = run(ready(bare))
        assert answer.status_code == 200 and statuses(answer)["orchestrator"] == "skipped"
    finally:
        bare.service.close()


def test_a_project_that_is_no_longer_sound_is_told_while_the_one_before_is_in_use(own_shop: Shop, run: Run) -> None:
    (own_shop.folder / "muxly.yaml").write_text("sources: {shop: {connector: nosuch}}", "utf-8")
    with pytest.raises(ConfigurationError):
        own_shop.service.project.reload()
    answer = run(ready(own_shop))
    assert (answer.status_code, statuses(answer)["project"]) == (503, "failed")
    assert "nosuch" in answer.json()["checks"][2]["what"]
    assert run(ready(own_shop, exclude="project")).status_code == 200


def test_a_damaged_lake_is_told(own_shop: Shop, run: Run) -> None:
    log = own_shop.folder / ".muxly" / "lake" / "shop" / "orders" / "_delta_log"
    for file in log.iterdir():
        file.write_text("not a log", "utf-8")
    answer = run(ready(own_shop))
    assert (answer.status_code, statuses(answer)["lake"]) == (503, "failed")


def test_a_state_that_is_away_is_told(own_shop: Shop, run: Run) -> None:
    own_shop.service.state.close()
    database = own_shop.folder / ".muxly" / "state.db"
    database.rename(database.with_suffix(".away"))
    database.mkdir()
    answer = run(ready(own_shop))
    assert (answer.status_code, statuses(answer)["state"]) == (503, "failed")
