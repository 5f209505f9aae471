"""What is to start does, once: whatever is down or killed on the way, and whoever asks for it beside others."""

import datetime as dt
import multiprocessing
import uuid
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from muxly_dagster.assembly.tags import SELECT
from muxly_dagster.defs.resources import OpenProject
from muxly_dagster.defs.starts import STARTS
from muxly_dagster.intake import Call
from muxly_dagster.lake import Lake
from muxly_dagster.state import START, Start, State
from muxly_dagster_tests.defs import hooked

KILLED = -9


@pytest.fixture(scope="module")
def processes() -> Iterator[ForkServerContext]:
    yield multiprocessing.get_context("forkserver")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with hooked.remembered(tmp_path) as state:
        yield state


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dagster")


@pytest.fixture(scope="module")
def shared(home: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster's memory on a disk."""
    with hooked.instance(home) as instance:
        yield instance


def call(state: State, delivery: str, body: bytes = b'{"n": 1}') -> Start | None:
    """Keep a call as the API does; the start that it opened."""
    now = dt.datetime.now(dt.UTC)
    kept = Call(0, str(uuid.uuid4()), "on_deal", delivery, now, {"content-type": "application/json"}, "", body)
    return state.calls.put(kept, Start(str(uuid.uuid4()), "on_deal", "webhook", now)).opened


def tick(folder: Path, instance: dg.DagsterInstance, *, hours: float = 0.0) -> list[dg.RunRequest]:
    """What the sensor requests; after so many hours."""
    definitions = hooked.definitions(folder)
    sensor = definitions.resolve_sensor_def(STARTS)
    resources = {"muxly": dict(definitions.resources or {})["muxly"]}
    with pytest.MonkeyPatch.context() as patch, dg.build_sensor_context(instance, definitions=definitions, resources=resources) as context:
        if hours:
            patch.setattr("muxly_dagster.defs.starts._now", lambda: dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours))
        return list(sensor.evaluate_tick(context).run_requests or [])


def seen(folder: Path) -> list[str]:
    """The calls that the last run saw as those that started it."""
    table = Lake(hooked.settings(folder).lake_url).table("seen")
    return sorted(table.current(["delivery"])["delivery"].to_pylist()) if table else []


def pulled(folder: Path) -> list[str]:
    """The calls in the lake."""
    table = Lake(hooked.settings(folder).lake_url).table("hooks.deals")
    return table.current(["delivery_id"])["delivery_id"].to_pylist() if table else []


def test_what_nobody_submitted_is_requested_once_and_runs_with_its_calls(
    tmp_path: Path, state: State, instance: dg.DagsterInstance
) -> None:
    start = call(state, "a")
    call(state, "b")
    assert start is not None
    (request,) = tick(tmp_path, instance)
    assert (request.job_name, request.run_key, request.tags[START]) == ("on_deal", f"{start.id}:0", start.id)
    assert tick(tmp_path, instance) == [], "it has just been asked for"
    ended = hooked.run(tmp_path, instance, request.tags)
    assert ended.status == dg.DagsterRunStatus.SUCCESS
    assert seen(tmp_path) == pulled(tmp_path) == ["a", "b"]
    found = state.starts.find(start.id)
    assert found is not None and (found.run_id, found.ended) == (ended.run_id, "begun")
    assert tick(tmp_path, instance, hours=24) == []


def test_a_run_whose_start_was_begun_by_another_does_nothing_and_says_why(
    tmp_path: Path, state: State, instance: dg.DagsterInstance
) -> None:
    start = call(state, "a")
    assert start is not None
    first = hooked.run(tmp_path, instance, {START: start.id}, run_id=start.id)
    call(state, "b")
    second = hooked.run(tmp_path, instance, {START: start.id})
    assert (first.status, second.status) == (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED)
    said = [entry.dagster_event.message or "" for entry in instance.all_logs(second.run_id) if entry.dagster_event]
    assert any(f"was begun by the run {first.run_id}" in message and "does nothing" in message for message in said)
    events = {entry.dagster_event.event_type for entry in instance.all_logs(second.run_id) if entry.dagster_event}
    assert dg.DagsterEventType.ASSET_MATERIALIZATION not in events and dg.DagsterEventType.RUN_FAILURE not in events
    assert pulled(tmp_path) == ["a"]


def test_a_run_that_repeats_one_has_its_start_and_its_calls(tmp_path: Path, state: State, instance: dg.DagsterInstance) -> None:
    start = call(state, "a")
    assert start is not None and state.starts.begin(start.id, start.id)
    call(state, "b")
    job = hooked.definitions(tmp_path).resolve_job_def("on_deal")
    repeated = instance.create_run_for_job(job, tags={START: start.id}, root_run_id=start.id, parent_run_id=start.id)
    anew = instance.create_run_for_job(job, tags={START: start.id})
    with hooked.opened(tmp_path) as runtime:
        ours = hooked.settings(tmp_path)
        for run, may in ((repeated, True), (anew, False)):
            project = OpenProject(ours, runtime.assembly)
            assert (project.begin(run) == "") is may
            assert [each.delivery_id for each in project.calls(run)] == ["a"]
            project.close()


def test_a_run_that_somebody_cancelled_and_repeats_runs_with_the_calls_that_waited_for_it(
    tmp_path: Path, state: State, instance: dg.DagsterInstance
) -> None:
    start = call(state, "a")
    assert start is not None and state.starts.cancel(start.id)
    call(state, "b")
    job = hooked.definitions(tmp_path).resolve_job_def("on_deal")
    anew = instance.create_run_for_job(job, tags={START: start.id})
    repeated = [instance.create_run_for_job(job, tags={START: start.id}, root_run_id=start.id, parent_run_id=start.id) for _ in range(2)]
    with hooked.opened(tmp_path) as runtime:
        for run, may in ((anew, False), (repeated[0], True), (repeated[1], True), (anew, False)):
            project = OpenProject(hooked.settings(tmp_path), runtime.assembly)
            assert (project.begin(run) == "") is may
            assert [each.delivery_id for each in project.calls(run)] == ["a"]
            project.close()
    assert state.calls.waiting("on_deal") == 1, "those of the next start are left to it"


def test_an_asset_of_ones_own_reads_the_calls_that_started_its_run(tmp_path: Path, state: State, instance: dg.DagsterInstance) -> None:
    start = call(state, "a", b'{"deal": 7}')
    assert start is not None and state.starts.begin(start.id, start.id)
    bodies: list[bytes] = []

    @dg.asset(required_resource_keys={"muxly"})
    def greeting(context: dg.AssetExecutionContext) -> None:
        bodies.extend(each.body for each in context.resources.muxly.calls(context.run))

    resources = dict(hooked.definitions(tmp_path).resources or {})
    for tags in ({START: start.id}, {}):
        assert dg.materialize([greeting], instance=instance, resources={"muxly": resources["muxly"]}, tags=tags).success
    assert bodies == [b'{"deal": 7}']


def test_a_start_whose_run_waits_or_comes_is_left_alone_and_one_whose_run_died_is_not(
    tmp_path: Path, state: State, instance: dg.DagsterInstance
) -> None:
    start = call(state, "a")
    assert start is not None
    state.starts.submitted(start.id, dt.datetime.now(dt.UTC) - dt.timedelta(minutes=10))
    job = hooked.definitions(tmp_path).resolve_job_def("on_deal")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("muxly"), "__repository__"), "on_deal")
    run = instance.create_run_for_job(job, run_id=start.id, tags={START: start.id}, remote_job_origin=origin)

    def becomes(event: dg.DagsterEventType) -> None:
        instance.report_dagster_event(dg.DagsterEvent(event.value, "on_deal"), run_id=run.run_id)

    becomes(dg.DagsterEventType.RUN_ENQUEUED)
    assert tick(tmp_path, instance, hours=5) == [], "the queue may be long"
    for event in (dg.DagsterEventType.RUN_STARTING, dg.DagsterEventType.RUN_START):
        becomes(event)
        assert tick(tmp_path, instance) == [], "it is going to begin any moment"
    assert [request.run_key for request in tick(tmp_path, instance, hours=1)] == [f"{start.id}:1"], "its process is gone"
    instance.report_run_failed(run)
    assert tick(tmp_path, instance) == [], "not so soon"
    assert [request.run_key for request in tick(tmp_path, instance, hours=2)] == [f"{start.id}:2"]


def test_a_run_that_somebody_cancelled_is_not_started_again(tmp_path: Path, state: State, instance: dg.DagsterInstance) -> None:
    start = call(state, "a")
    assert start is not None
    state.starts.submitted(start.id, dt.datetime.now(dt.UTC) - dt.timedelta(minutes=10))
    job = hooked.definitions(tmp_path).resolve_job_def("on_deal")
    instance.report_run_canceled(instance.create_run_for_job(job, run_id=start.id, tags={START: start.id}))
    assert tick(tmp_path, instance) == tick(tmp_path, instance, hours=24) == []
    found = state.starts.find(start.id)
    assert found is not None and found.ended == "cancelled"
    assert state.calls.waiting("on_deal") == 0


def test_what_comes_while_a_run_is_under_way_starts_when_it_has_ended(tmp_path: Path, state: State, instance: dg.DagsterInstance) -> None:
    first = call(state, "a")
    assert first is not None
    job = hooked.definitions(tmp_path).resolve_job_def("on_deal")
    run = instance.create_run_for_job(job, run_id=first.id, tags={START: first.id})
    with hooked.opened(tmp_path) as runtime:
        project = OpenProject(hooked.settings(tmp_path), runtime.assembly)
        assert project.begin(run) == ""
        second = call(state, "b")
        assert second is not None
        state.starts.put(Start("by hand", "on_deal", "api", dt.datetime.now(dt.UTC)))
        assert [request.tags[START] for request in tick(tmp_path, instance)] == ["by hand"], "only what webhooks start waits"
        project.close()
    (request,) = tick(tmp_path, instance)
    assert request.tags[START] == second.id


def test_starts_of_jobs_that_are_gone_wait_for_them(tmp_path: Path, state: State, instance: dg.DagsterInstance) -> None:
    state.starts.put(Start("s1", "gone", "api", dt.datetime.now(dt.UTC)))
    assert tick(tmp_path, instance) == []
    assert [start.id for start in state.starts.open("gone")] == ["s1"]


def test_a_start_of_assets_that_its_job_has_no_more_waits_for_them_and_holds_nobody_up(
    tmp_path: Path, state: State, instance: dg.DagsterInstance
) -> None:
    now = dt.datetime.now(dt.UTC)
    state.starts.put(Start("s1", "other", "api", now - dt.timedelta(hours=1), {SELECT: "hooks.gone"}))
    state.starts.put(Start("s2", "other", "api", now, {SELECT: "hooks.deals"}))
    assert [request.tags[START] for request in tick(tmp_path, instance)] == ["s2"]
    waits = state.starts.find("s1")
    assert waits is not None and (waits.ended, waits.attempts) == (None, 0)


def test_what_is_to_begin_later_does_not_begin_while_its_job_is_paused(tmp_path: Path, state: State, instance: dg.DagsterInstance) -> None:
    now = dt.datetime.now(dt.UTC)
    for id, cause in (("late", "cron"), ("by hand", "api")):
        state.starts.put(Start(id, "other", cause, now))  # type: ignore[arg-type]
    state.jobs.pause("other", paused=True)
    assert [request.tags[START] for request in tick(tmp_path, instance)] == ["by hand"]
    state.jobs.pause("other", paused=False)
    assert tick(tmp_path, instance) == [], "what came while it was paused is not made up for"


def test_a_run_that_nobody_asked_a_start_for_runs_as_ever(tmp_path: Path, state: State, instance: dg.DagsterInstance) -> None:
    call(state, "a")
    assert hooked.run(tmp_path, instance, {}, job="other").status == dg.DagsterRunStatus.SUCCESS
    assert pulled(tmp_path) == ["a"]
    assert state.calls.waiting("on_deal") == 1, "the calls are still those of the start that waits"


# ---- kill -9 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["before it is submitted", "while it is submitted"])
def test_an_api_that_is_killed_behind_its_commit_loses_nothing(
    processes: ForkServerContext, tmp_path: Path, state: State, shared: dg.DagsterInstance, point: str
) -> None:
    _killed(processes, hooked.call_and_die, tmp_path, point, f"killed {point}")
    assert state.calls.waiting("on_deal") == 1
    (request,) = tick(tmp_path, shared, hours=1)
    assert hooked.run(tmp_path, shared, request.tags).status == dg.DagsterRunStatus.SUCCESS
    assert len(pulled(tmp_path)) == 1 and pulled(tmp_path) == seen(tmp_path)
    assert tick(tmp_path, shared, hours=24) == []


def test_a_run_that_is_killed_before_it_begins_is_followed_by_another_and_does_nothing_when_it_comes_back(
    processes: ForkServerContext, tmp_path: Path, state: State, home: Path, shared: dg.DagsterInstance
) -> None:
    start = call(state, "a")
    assert start is not None and state.starts.submitted(start.id, dt.datetime.now(dt.UTC))
    _killed(processes, hooked.run_and_die, tmp_path, home, "before it begins", start.id)
    assert state.calls.waiting("on_deal") == 1
    (request,) = tick(tmp_path, shared, hours=1)
    assert hooked.run(tmp_path, shared, request.tags).status == dg.DagsterRunStatus.SUCCESS
    assert pulled(tmp_path) == seen(tmp_path) == ["a"]
    assert not state.starts.begin(start.id, start.id)


def test_a_run_that_is_killed_behind_its_beginning_is_not_run_again_by_itself(
    processes: ForkServerContext, tmp_path: Path, state: State, home: Path, shared: dg.DagsterInstance
) -> None:
    """What it did may be half done: whoever looks at it runs it again, and it has its calls then."""
    start = call(state, "a")
    assert start is not None and state.starts.submitted(start.id, dt.datetime.now(dt.UTC))
    _killed(processes, hooked.run_and_die, tmp_path, home, "behind its beginning", start.id)
    assert tick(tmp_path, shared, hours=1) == []
    assert [each.delivery_id for each in state.calls.of_start(start.id)] == ["a"]
    second = call(state, "b")
    (request,) = tick(tmp_path, shared)
    assert second is not None and request.tags[START] == second.id, "a run that is dead holds nobody up"
    assert hooked.run(tmp_path, shared, request.tags).status == dg.DagsterRunStatus.SUCCESS
    assert (pulled(tmp_path), seen(tmp_path)) == (["a", "b"], ["b"]), "the stream has every call once"


def _killed(processes: ForkServerContext, target: object, *arguments: object) -> None:
    child = processes.Process(target=target, args=arguments)  # type: ignore[arg-type]
    child.start()
    child.join()
    assert child.exitcode == KILLED
