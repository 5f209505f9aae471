"""Schedules as Dagster's own scheduler keeps them: daylight saving, times in which nothing ran, jitter, paused jobs."""

import datetime as dt
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from muxly_dagster.assembly.tags import TICK
from muxly_dagster.assembly.ticks import passed, upcoming
from muxly_dagster.defs import schedules
from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.defs.schedules import IN_TIME, jitter, start_id
from muxly_dagster.errors import RetryLater
from muxly_dagster.project.models import JobSpec
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings
from muxly_dagster.state import State
from muxly_dagster_tests.defs.shop import assembly
from muxly_dagster_tests.peers.daemon import Scheduler, scheduler

PROJECT = """
sources:
  shop: {connector: files, path: ./in, pulls: [orders]}
jobs:
"""
NIGHTS = """
  half_past_two: {select: [shop], cron: "30 2 * * *", timezone: Europe/Berlin}
  by_the_hour: {select: [shop], cron: "0 * * * *", timezone: Europe/Berlin}
"""
THE_LAST = """
  the_last: {select: [shop], cron: "0 * * * *"}
"""
THEM_ALL = """
  them_all: {select: [shop], cron: "0 * * * *", catch_up: all}
"""
OTHERS = """
  nothing: {select: [shop], cron: "0 * * * *", catch_up: none}
  at_rest: {select: [shop], cron: "0 * * * *", catch_up: all}
"""
SPRING = dt.datetime(2026, 3, 29, tzinfo=dt.UTC)  # 02:00 to 03:00 is not there in Berlin
AUTUMN = dt.datetime(2026, 10, 25, tzinfo=dt.UTC)  # 02:00 to 03:00 comes twice in Berlin


@contextmanager
def keeping(folder: Path, jobs: str) -> Iterator[Scheduler]:
    """A scheduler over a project with these jobs."""
    (folder / "in").mkdir()
    (folder / "muxly.yaml").write_text(PROJECT + jobs)
    with scheduler(folder) as running:
        yield running


def at(*hours: float, day: dt.datetime = SPRING) -> list[dt.datetime]:
    return [day + dt.timedelta(hours=hour) for hour in hours]


def runs(daemon: Scheduler, job: str) -> list[dt.datetime]:
    """For which moments a job was started, the oldest first."""
    return sorted(dt.datetime.fromisoformat(run.tags[TICK]) for run in daemon.instance.get_runs(dg.RunsFilter(job_name=job)))


def test_a_night_that_has_no_half_past_two_or_two_of_them_has_one_run(tmp_path: Path) -> None:
    with keeping(tmp_path, NIGHTS) as daemon:
        for moment in at(0.75, 1, 1.5, 2):
            daemon.look(moment + dt.timedelta(seconds=20))
        daemon.switch_on(AUTUMN - dt.timedelta(minutes=15))
        for moment in at(0, 0.5, 1, 1.5, 2, day=AUTUMN):
            daemon.look(moment + dt.timedelta(seconds=20))
        spring, *autumn = runs(daemon, "half_past_two")
        assert spring == SPRING + dt.timedelta(hours=1), "03:00 in Berlin, the first moment behind the gap"
        assert autumn == at(1.5, day=AUTUMN), "the second of the two"
        assert runs(daemon, "by_the_hour") == [*at(1, 2), *at(0, 1, 2, day=AUTUMN)], "every hour that there is"


def test_what_was_missed_while_dagster_was_down_is_made_up_for_as_the_job_says(tmp_path: Path) -> None:
    with keeping(tmp_path, THE_LAST + THEM_ALL + OTHERS) as daemon:
        daemon.look(SPRING + dt.timedelta(hours=1, minutes=30))  # the schedules are switched on
        state = State.open(f"sqlite:///{tmp_path}/home/state.db", tmp_path / "home")
        state.jobs.pause("at_rest", paused=True)
        daemon.restart()
        daemon.look(SPRING + dt.timedelta(hours=5, minutes=10))
        assert runs(daemon, "the_last") == at(5)
        assert runs(daemon, "them_all") == at(2, 3, 4, 5)
        assert runs(daemon, "at_rest") == []
        assert runs(daemon, "nothing") == []
        assert "makes up for nothing" in daemon.ticks("nothing_schedule")[-1][2]
        assert "muxly jobs resume at_rest" in daemon.ticks("at_rest_schedule")[-1][2]
        state.jobs.pause("at_rest", paused=False)
        state.close()
        daemon.restart()
        daemon.look(SPRING + dt.timedelta(hours=7, seconds=5))
        assert runs(daemon, "at_rest") == at(6, 7), "what came while it was paused is not made up for"
        assert runs(daemon, "them_all") == at(2, 3, 4, 5, 6, 7), "nothing is made up for twice"


def test_not_more_is_made_up_for_than_a_queue_can_bear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "MOST_MADE_UP", 2)
    with keeping(tmp_path, THEM_ALL) as daemon:
        daemon.look(SPRING + dt.timedelta(minutes=30))
        daemon.restart()
        daemon.look(SPRING + dt.timedelta(days=30))
        assert runs(daemon, "them_all") == at(718, 719, 720)


def test_a_year_of_minutes_is_not_counted() -> None:
    spec = JobSpec(select=["shop"], cron="* * * * *", catch_up="all")
    newest = passed(spec, SPRING - dt.timedelta(days=36_500), SPRING)
    assert list(itertools.islice(newest, 3)) == [SPRING - dt.timedelta(minutes=minutes) for minutes in (1, 2, 3)]


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 * * * *", "*/15 1-3 * * *", "30 2 29 3 *", "5 */2 * * sun"])
@pytest.mark.parametrize("day", [SPRING, AUTUMN])
def test_moments_are_the_same_from_either_end(cron: str, day: dt.datetime) -> None:
    spec = JobSpec(select=["shop"], cron=cron, timezone="Europe/Berlin")
    first, last = day - dt.timedelta(days=1), day + dt.timedelta(days=2)
    assert [*passed(spec, first, last)][::-1] == list(itertools.takewhile(lambda each: each < last, upcoming(spec, first)))


# ---- one tick, evaluated as of now


def tick(settings: Settings, spec: JobSpec, moment: dt.datetime, instance: dg.DagsterInstance) -> tuple[list[dg.RunRequest], str]:
    definitions = assembly_definitions(assembly(jobs={"often": spec}), settings)
    resources = {"muxly": dict(definitions.resources or {})["muxly"]}
    with dg.build_schedule_context(instance, scheduled_execution_time=moment, resources=resources) as context:
        result = definitions.resolve_schedule_def("often_schedule").evaluate_tick(context)
    return list(result.run_requests or []), result.skip_message or ""


def test_a_run_begins_later_by_a_jitter_of_its_own(shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    spec = JobSpec(select=["shop"], cron="* * * * *", jitter="1h")
    moment = dt.datetime.now(dt.UTC).replace(microsecond=0)
    for _ in range(2):  # a tick that is evaluated again starts nothing more
        requests, why = tick(shop_settings, spec, moment, instance)
        assert requests == []
        assert why.startswith("it begins at ")
    with Runtime.of(shop_settings, assembly()) as runtime:
        [start] = runtime.state.starts.open("often")
        assert (start.id, start.cause) == (start_id("often", moment), "cron")
        assert start.due_at == moment + jitter("often", spec, moment)
        assert dt.datetime.fromisoformat(start.tags[TICK]) == moment
        assert runtime.state.starts.due(moment) == []
        assert runtime.state.starts.due(start.due_at) == [start]
    late = moment - dt.timedelta(hours=2)
    assert [request.tags[TICK] for request in tick(shop_settings, spec, late, instance)[0]] == [late.isoformat()]


def test_jitter_is_the_same_for_a_tick_and_spread_over_ticks_and_jobs() -> None:
    spec = JobSpec(select=["shop"], cron="* * * * *", jitter="60s")
    ticks = [SPRING + dt.timedelta(minutes=minute) for minute in range(600)]
    found = [jitter("often", spec, each).total_seconds() for each in ticks]
    assert found == [jitter("often", spec, each).total_seconds() for each in ticks]
    assert all(0 <= seconds < 60 for seconds in found)
    assert found != [jitter("seldom", spec, each).total_seconds() for each in ticks]
    assert all(30 < sum(low <= seconds < low + 10 for seconds in found) < 170 for low in range(0, 60, 10))


@pytest.mark.parametrize("spec", [JobSpec(select=["shop"], cron="* * * * *", jitter="1h"), JobSpec(select=["shop"], cron="* * * * *")])
def test_a_database_that_is_away_lets_no_run_be_missed(
    shop_settings: Settings, instance: dg.DagsterInstance, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(url: str, home: Path) -> State:
        raise RetryLater("the state database cannot be used")

    monkeypatch.setattr(State, "open", away)
    moment = dt.datetime.now(dt.UTC)
    assert len(tick(shop_settings, spec, moment, instance)[0]) == 1


def test_a_tick_in_time_is_not_missed(shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    spec = JobSpec(select=["shop"], cron="* * * * *", catch_up="none")
    now = dt.datetime.now(dt.UTC)
    assert len(tick(shop_settings, spec, now - IN_TIME / 2, instance)[0]) == 1
    assert tick(shop_settings, spec, now - IN_TIME * 2, instance)[0] == []


def test_upcoming_moments_are_those_behind_one() -> None:
    spec = JobSpec(select=["shop"], cron="0 12 * * *", timezone="America/New_York")
    noon = dt.datetime(2026, 3, 7, 17, tzinfo=dt.UTC)
    following = upcoming(spec, noon)
    assert [next(following), next(following)] == [noon + dt.timedelta(hours=23), noon + dt.timedelta(hours=47)]
    assert next(upcoming(JobSpec(select=["shop"]), noon), None) is None
