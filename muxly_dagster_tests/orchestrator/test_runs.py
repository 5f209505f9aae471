"""Runs on a real code server: they start at once under the id that was asked for, and are followed, canceled, retried."""

import datetime as dt
import os
import signal
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.orchestrator import Orchestrator, RunEvent, dagster_private
from muxly_dagster.orchestrator import orchestrator as module
from muxly_dagster.orchestrator.words import IMPLICIT_JOB
from muxly_dagster_tests.orchestrator.conftest import finished
from muxly_dagster_tests.peers.dagster import Shop, until

pytestmark = pytest.mark.xdist_group("orchestrator")


def _new() -> str:
    return str(uuid.uuid4())


def _instance(orchestrator: Orchestrator) -> dg.DagsterInstance:
    """Dagster's own view of the same home."""
    return orchestrator._instance()


def test_a_run_is_like_one_that_dagster_started(orchestrator: Orchestrator) -> None:
    run_id, before = _new(), dt.datetime.now(dt.UTC)
    orchestrator.submit("day", run_id, {"shop/of": "s1"})
    run = finished(orchestrator, run_id)
    assert (run.job, run.status, run.assets) == ("day", "success", ("shop.orders", "shop.returns"))
    assert run.tags["shop/of"] == "s1" and run.tags["muxly/job"] == "day"
    assert run.started_at is not None and run.ended_at is not None
    assert before <= run.created_at <= run.started_at <= run.ended_at

    theirs = _instance(orchestrator).get_run_by_id(run_id)
    assert theirs is not None and theirs.remote_job_origin is not None
    assert theirs.remote_job_origin.location_name == "muxly" and theirs.job_snapshot_id and theirs.execution_plan_snapshot_id

    made = {each.asset: each.counts for each in orchestrator.materializations(run_id)}
    assert made["shop.orders"]["read"] == made["shop.returns"]["read"] == 2
    lines = orchestrator.events(run_id)
    said = [line.message for line in lines]
    assert "has started" in said and "succeeded" in said and "shop__orders has started" in said
    assert any(line.asset == "shop.orders" and line.message.startswith("shop.orders: 2 read, 2 changed") for line in lines)


def test_the_same_id_runs_once_however_often_and_from_wherever_it_is_asked_for(orchestrator: Orchestrator) -> None:
    run_id = _new()
    with ThreadPoolExecutor(4) as threads:
        for asked in [threads.submit(orchestrator.submit, "day", run_id, {}, ("shop.orders",)) for _ in range(4)]:
            asked.result()
    assert finished(orchestrator, run_id).assets == ("shop.orders",)
    orchestrator.submit("day", run_id, {})
    started = [line for line in orchestrator.events(run_id) if line.kind == "run_start"]
    assert len(started) == 1
    assert [made.asset for made in orchestrator.materializations(run_id)] == ["shop.orders"]


def test_what_is_not_there_is_said_before_anything_is_written(orchestrator: Orchestrator) -> None:
    run_id = _new()
    with pytest.raises(ConfigurationError, match="knows no job night"):
        orchestrator.submit("night", run_id, {})
    with pytest.raises(ConfigurationError, match=r"the job day has no shop\.stock, shop\.till") as wrong:
        orchestrator.submit("day", run_id, {}, ("shop.till", "shop.stock", "shop.orders"))
    assert wrong.value.problems[0].do == "choose of shop.orders, shop.returns"
    assert orchestrator.run(run_id) is None
    for call in (orchestrator.cancel, orchestrator.retry, orchestrator.events):
        with pytest.raises(ConfigurationError, match=f"no run {run_id}"):
            call(run_id)
    assert orchestrator.materializations(run_id) == []


def test_a_failed_run_says_why_and_is_done_again_from_where_it_failed(orchestrator: Orchestrator, shop: Shop) -> None:
    shop.counter.broken.add("/returns")
    run_id = _new()
    orchestrator.submit("day", run_id, {"shop/of": "s2"})
    assert finished(orchestrator, run_id).status == "failure"
    lines = orchestrator.events(run_id)
    [failed] = [line for line in lines if line.kind == "step_failure"]
    assert failed.level == "error" and failed.step == "shop__returns" and not failed.error
    assert failed.message.startswith("shop__returns failed: GET http://127.0.0.1") and "Traceback" not in failed.message
    assert [line.message for line in lines if line.kind == "run_failure"] == ["failed at shop__returns"]

    shop.counter.broken.clear()
    again = orchestrator.retry(run_id)
    run = finished(orchestrator, again)
    assert (run.status, run.job, run.assets, run.retry_of, run.first) == ("success", "day", ("shop.returns",), run_id, run_id)
    assert run.tags["shop/of"] == "s2"
    assert [made.asset for made in orchestrator.materializations(again)] == ["shop.returns"]
    with pytest.raises(ConfigurationError, match="nothing of the run"):
        orchestrator.retry(again)
    with pytest.raises(ConfigurationError, match="has ended already: success"):
        orchestrator.cancel(again)


def test_a_run_is_followed_while_it_runs_and_ends_when_it_is_canceled(orchestrator: Orchestrator, shop: Shop) -> None:
    let_go = shop.counter.hold("/stock")
    run_id = _new()
    orchestrator.submit("stocktaking", run_id, {"shop/till": "1"})
    seen: list[RunEvent] = []
    follower = threading.Thread(target=lambda: seen.extend(line for line in orchestrator.follow(run_id) if line))
    follower.start()
    assert shop.counter.reached["/stock"].wait(90)
    until(lambda: any(line.kind == "step_start" for line in seen))  # told while the step still runs
    assert follower.is_alive()
    with pytest.raises(ConfigurationError, match="has not ended"):
        orchestrator.retry(run_id)

    waiting = _new()  # one run at a time may use the till
    orchestrator.submit("stocktaking", waiting, {"shop/till": "2"})
    assert orchestrator.run(waiting).status == "queued"  # type: ignore[union-attr]
    unbound = _new()  # the queue has its order: nobody overtakes who waits in it
    orchestrator.submit("day", unbound, {})
    assert orchestrator.run(unbound).status == "queued"  # type: ignore[union-attr]
    for queued in (waiting, unbound):
        orchestrator.cancel(queued)
        assert orchestrator.run(queued).status == "canceled"  # type: ignore[union-attr]

    orchestrator.cancel(run_id)
    until(lambda: orchestrator.run(run_id).ended)  # type: ignore[union-attr]
    let_go()
    follower.join(90)
    assert not follower.is_alive()
    assert orchestrator.run(run_id).status == "canceled"  # type: ignore[union-attr]
    assert [line.cursor for line in seen] == [line.cursor for line in orchestrator.events(run_id)][: len(seen)]
    assert "was canceled" in [line.message for line in seen]

    del shop.counter.held["/stock"]
    again = orchestrator.retry(run_id)
    assert finished(orchestrator, again).status == "success"


def test_a_run_whose_process_is_killed_has_failed(orchestrator: Orchestrator, shop: Shop) -> None:
    shop.counter.hold("/stock")
    run_id = _new()
    orchestrator.submit("stocktaking", run_id, {})
    assert shop.counter.reached["/stock"].wait(90)
    [said] = [line.message for line in orchestrator.events(run_id) if "Started process" in line.message]
    pid = int(said.partition("pid: ")[2].rstrip(")."))
    if sys.platform == "linux":  # a copy of the fork server, not an interpreter of its own
        assert b"multiprocessing.forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    os.kill(pid, signal.SIGKILL)
    until(lambda: orchestrator.run(run_id).ended)  # type: ignore[union-attr]
    assert orchestrator.run(run_id).status == "failure"  # type: ignore[union-attr]
    shop.counter.held.pop("/stock").set()


def test_assets_that_somebody_chose_by_hand_are_retried_as_well(orchestrator: Orchestrator, shop: Shop) -> None:
    shop.counter.broken.add("/stock")
    run_id = _new()
    orchestrator.submit(IMPLICIT_JOB, run_id, {"by": "hand"}, ("shop.stock",))
    run = finished(orchestrator, run_id)
    assert (run.job, run.status, run.assets) == ("", "failure", ("shop.stock",))
    shop.counter.broken.clear()
    again = finished(orchestrator, orchestrator.retry(run_id))
    assert (again.job, again.status, again.assets, again.tags["by"]) == ("", "success", ("shop.stock",), "hand")


def test_runs_are_listed_the_newest_first_by_job_and_status_and_page(orchestrator: Orchestrator) -> None:
    everything = orchestrator.runs(limit=1000)
    assert [run.created_at for run in everything] == sorted((run.created_at for run in everything), reverse=True)
    first = orchestrator.runs(limit=2)
    rest = orchestrator.runs(after=first[-1].id, limit=1000)
    assert first + rest == everything
    failed = orchestrator.runs(job="day", statuses=["failure", "canceled"])
    assert failed and failed == [run for run in everything if run.job == "day" and run.status in ("failure", "canceled")]
    assert orchestrator.runs(job="night") == []


def test_pages_of_a_log_are_the_log(orchestrator: Orchestrator) -> None:
    [newest] = orchestrator.runs(limit=1, statuses=["success"])
    whole = orchestrator.lines(newest.id)
    assert not whole.more
    paged, cursor, more = list[RunEvent](), "", True
    while more:
        page = orchestrator.lines(newest.id, cursor, 3)
        assert len(page.events) <= 3
        paged, cursor, more = [*paged, *page.events], page.cursor, page.more
    assert tuple(paged) == whole.events
    with pytest.raises(ConfigurationError, match="no place in a run's log"):
        orchestrator.lines(newest.id, "../etc")


def test_a_run_that_a_process_left_behind_is_taken_up(orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = _new()
    code, selector = orchestrator._find("day", ("shop.orders",))
    dagster_private.create(_instance(orchestrator), code, selector, run_id, {})
    orchestrator.submit("day", run_id, {})
    assert orchestrator.run(run_id).status == "starting"  # type: ignore[union-attr]  # somebody may be about to launch it
    assert orchestrator.events(run_id) == []
    monkeypatch.setattr(module, "_SECONDS_UNTIL_FORGOTTEN", 0.0)
    orchestrator.submit("day", run_id, {})
    assert finished(orchestrator, run_id).status == "success"
    orchestrator.submit("day", run_id, {})
    assert [line.kind for line in orchestrator.events(run_id)].count("run_start") == 1
