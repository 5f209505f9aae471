"""The sensor that empties the inbox: one run for what waits and all behind it, none beside one under way, later after one that failed."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import orjson
import pytest

from muxly_dagster.assembly import Assembly, load_assembly
from muxly_dagster.collecting import Lines
from muxly_dagster.defs import inbox
from muxly_dagster.defs.inbox import INBOX
from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.policy import Breaker
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings
from muxly_dagster.state import Wait
from muxly_dagster.state.posts import Part, Post
from muxly_dagster_tests.defs.shop import settings

PROJECT = """
sources:
  app:
    connector: collector
    pulls: {signups: {}, visits: {}, clicks: {stream: presses}}
  other: {connector: collector, automatic: false, pulls: [signups]}
transforms:
  totals: {sql: "select count(*) as count from app.signups", key: count}
routes:
  signups_out: {from: app.signups, to: [files, hook]}
  totals_out: {from: totals, to: files}
  visits_out: {from: app.visits, to: files}
destinations:
  files: {type: file, path: ./out, format: ndjson}
  hook: {type: webhook, url: "http://127.0.0.1:9/", allow: [127.0.0.1]}
"""
SIGNUPS = ["app/signups", "signups_out/files", "signups_out/hook", "totals", "totals_out/files"]
VISITS = ["app/visits", "visits_out/files"]
NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


class Place:
    """A project with its home, and Dagster's memory of its runs."""

    def __init__(self, assembly: Assembly, chosen: Settings, instance: dg.DagsterInstance) -> None:
        self.instance, self.settings, self.assembly = instance, chosen, assembly
        self.definitions = assembly_definitions(assembly, chosen)
        self.runtime = Runtime.of(chosen, assembly)

    def put(self, stream: str, *numbers: int, source: str = "app") -> None:
        lines = [orjson.dumps({"n": n}) for n in numbers]
        self.runtime.state.inbox.put([Post(source, [Part(stream, Lines(lines), [f"e-{n}" for n in numbers])])])

    def tick(self) -> list[list[str]]:
        """The assets of every run that is requested."""
        resources = dict(self.definitions.resources or {})
        with dg.build_sensor_context(self.instance, definitions=self.definitions, resources={"muxly": resources["muxly"]}) as context:
            requests = self.definitions.resolve_sensor_def(INBOX).evaluate_tick(context).run_requests or []
        return [sorted(key.to_user_string() for key in request.asset_selection or ()) for request in requests]

    def begin(self, assets: list[str]) -> dg.DagsterRun:
        """A run as the daemon creates it for this sensor."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        selection = frozenset(dg.AssetKey.from_user_string(name) for name in assets)
        return self.instance.create_run_for_job(job, asset_selection=selection, tags={"dagster/sensor_name": INBOX})

    def execute(self, assets: list[str]) -> bool:
        """Run these assets here."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey.from_user_string(name) for name in assets]
        tags = {"dagster/sensor_name": INBOX}
        return job.execute_in_process(instance=self.instance, asset_selection=keys, tags=tags, raise_on_error=False).success

    def lines(self, table: str) -> list[int]:
        """What the route's files hold."""
        files = sorted((self.settings.project.parent / "out" / table).glob("*.ndjson"))
        return [orjson.loads(line)["data"]["n"] for file in files for line in file.read_bytes().splitlines()]


@pytest.fixture
def place(tmp_path: Path, instance: dg.DagsterInstance) -> Iterator[Place]:
    (tmp_path / "muxly.yaml").write_text(PROJECT)
    place = Place(load_assembly(tmp_path / "muxly.yaml", {}), settings(tmp_path), instance)
    yield place
    place.runtime.state.close()


# ---- what is requested -----------------------------------------------------------------------------------------------


def test_a_burst_is_one_run_of_the_pull_and_all_that_follows(place: Place) -> None:
    assert place.tick() == []
    for number in range(5):
        place.put("signups", number)
    assert place.tick() == [SIGNUPS]


def test_pulls_that_have_nothing_in_common_have_runs_of_their_own(place: Place) -> None:
    place.put("visits", 1)
    place.put("signups", 1)
    place.put("presses", 1)
    assert sorted(place.tick()) == [["app/clicks"], SIGNUPS, VISITS]


def test_pulls_that_lead_to_the_same_assets_have_one_run() -> None:
    behind = {"a": frozenset("ax"), "b": frozenset("by"), "c": frozenset("cxy"), "d": frozenset("d")}
    assert inbox._together(["a", "b"], behind) == [(["a"], ["a", "x"]), (["b"], ["b", "y"])]
    assert inbox._together("abcd", behind) == [(["a", "b", "c"], ["a", "b", "c", "x", "y"]), (["d"], ["d"])]


def test_a_source_that_is_left_to_jobs_and_a_stream_that_no_pull_reads_wake_nobody(place: Place) -> None:
    place.put("signups", 1, source="other")
    place.put("unknown", 1)
    assert place.tick() == []


def test_a_project_without_automatic_pulls_has_no_such_sensor(tmp_path: Path) -> None:
    (tmp_path / "muxly.yaml").write_text("sources:\n  app: {connector: collector, automatic: false, pulls: [signups]}\n")
    definitions = assembly_definitions(load_assembly(tmp_path / "muxly.yaml", {}), settings(tmp_path))
    assert INBOX not in [sensor.name for sensor in definitions.sensors or ()]


# ---- beside and after other runs -------------------------------------------------------------------------------------


def test_while_a_run_is_unfinished_only_others_are_requested(place: Place) -> None:
    place.put("signups", 1)
    run = place.begin(SIGNUPS)
    assert place.tick() == []
    place.put("visits", 1)
    assert place.tick() == [VISITS]
    place.instance.report_run_canceled(run)
    place.put("signups", 2)
    assert place.tick() == [VISITS], "not at once after a run that came to nothing"


def test_a_run_that_nobody_heard_of_for_an_hour_counts_as_failed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("signups", 1)
    place.begin(SIGNUPS)
    monkeypatch.setattr(inbox, "_FIRST", dt.timedelta(0))
    assert place.tick() == []
    monkeypatch.setattr(inbox, "_ALIVE", dt.timedelta(0))
    assert place.tick() == [SIGNUPS]


def test_a_run_that_failed_is_repeated_though_nothing_waits(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had pulled before it failed, nobody else would deliver."""
    run = place.begin(SIGNUPS)
    place.instance.report_run_failed(run)
    assert place.tick() == [], "not at once"
    monkeypatch.setattr(inbox, "_FIRST", dt.timedelta(0))
    assert place.tick() == [SIGNUPS]
    place.instance.report_run_canceled(place.begin(SIGNUPS))
    assert place.tick() == [], "who cancels a run does not want it"


def ran(status: dg.DagsterRunStatus, seconds_ago: float, *assets: str) -> inbox._Ran:
    moment = NOW - dt.timedelta(seconds=seconds_ago)
    return inbox._Ran(frozenset(assets or ("app.signups",)), status, moment, moment)


@pytest.mark.parametrize(
    ("failures", "waits", "pulled", "seconds"),
    [
        (1, True, False, 10),
        (2, True, False, 20),
        (3, False, False, 40),
        (5, True, False, 160),
        (5, True, True, 60),
        (5, False, True, 160),
        (60, True, False, 600),
    ],
)
def test_it_waits_longer_after_each_failure(failures: int, waits: bool, pulled: bool, seconds: int) -> None:
    """New events wait a minute at most for what is wrong behind a pull that works itself."""
    last_pull = NOW if pulled else None
    for ago, due in ((seconds - 1, False), (seconds, True)):
        failed = [ran(dg.DagsterRunStatus.FAILURE, ago + number) for number in range(failures)]
        runs = inbox._Runs([*failed, ran(dg.DagsterRunStatus.SUCCESS, 9000), ran(dg.DagsterRunStatus.FAILURE, 9001)], frozenset())
        assert runs.due("app.signups", NOW, waits=waits, last_pull=last_pull) is due
        assert runs.due("app.visits", NOW, waits=waits, last_pull=last_pull) is waits, "another pull has nothing to do with it"


# ---- what is left out ------------------------------------------------------------------------------------------------


def test_deliveries_that_are_due_later_are_left_to_their_moment(place: Place) -> None:
    place.put("signups", 1)
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    waiting = place.runtime.state.waiting
    waiting.put(Wait("signups_out.hook", soon, "a batch is not full yet"))
    assert place.tick() == [SIGNUPS], "more events may fill the batch"
    waiting.put(Wait("signups_out.hook", soon, "away", 1))
    without = [name for name in SIGNUPS if name != "signups_out/hook"]
    assert place.tick() == [without]
    waiting.put(Wait("signups_out.hook", soon, "its breaker is open"))
    breakers, now = place.runtime.state.breakers, dt.datetime.now(dt.UTC)
    breakers.failed("hook", Breaker(failures=1), "away", now)
    assert place.tick() == [without]
    waiting.clear("signups_out.hook")
    assert place.tick() == [SIGNUPS], "a delivery that does not know of its moment yet learns of it"
    breakers.disable("hook", "gone", now)
    assert place.tick() == [without]


# ---- and what becomes of it ------------------------------------------------------------------------------------------


def test_what_is_requested_brings_events_into_the_files_and_empties_the_inbox(place: Place) -> None:
    place.put("visits", 1, 2, 3)
    [assets] = place.tick()
    assert place.execute(assets)
    assert place.lines("app_visits") == [1, 2, 3]
    assert place.runtime.state.inbox.waiting("app") == {} and place.tick() == []
    place.put("visits", 4)
    assert place.tick() == [VISITS]


def test_a_destination_that_is_away_costs_the_others_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("signups", 1)
    [assets] = place.tick()
    monkeypatch.setattr("muxly_dagster.delivery.patience.random.uniform", lambda low, high: low)
    assert not place.execute(assets), "nobody listens there"
    assert place.lines("app_signups") == [1]
    monkeypatch.setattr(inbox, "_FIRST", dt.timedelta(0))
    without = [name for name in SIGNUPS if name != "signups_out/hook"]
    assert place.tick() == [without], "the rest of the run is made up for"
    assert place.execute(without) and place.tick() == []
    place.put("signups", 2)
    assert place.tick() == [without]


# ---- looking at it ---------------------------------------------------------------------------------------------------


def test_events_can_be_previewed_and_queried_and_traced(place: Place) -> None:
    place.put("visits", 1, 2)
    assert [row["n"] for row in place.runtime.preview("app.visits", 10)] == [1, 2]
    assert place.runtime.preview_notes("app.visits") == ("2 events wait; what is in the lake already is not shown",)
    assert place.runtime.assembly.sources["app"].test_connection().what == "2 events wait (visits 2)", "a preview lets go of nothing"
    place.runtime.run("app.visits")
    place.runtime.run("visits_out.files")
    assert place.runtime.query("select n, _id is not null as known from app.visits").to_pylist() == [
        {"n": 1, "known": True},
        {"n": 2, "known": True},
    ]
    [story] = place.runtime.trace("app.visits #2")
    assert story["record"]["data"]["n"] == 2 and [each["outcome"] for each in story["targets"]] == ["accepted"]
