"""/v1/jobs: jobs are made, changed, deleted, paused, resumed and started; what would not do in muxly.yaml does not do here."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.api.service import Service
from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.orchestrator import Orchestrator, Run
from muxly_dagster.settings import Settings
from muxly_dagster_tests.api.inside import Api

PROJECT = """
sources:
  shop:
    connector: files
    path: ./in
    pulls: [orders, returns]
routes:
  out: {from: shop.orders, to: [archive]}
destinations:
  archive: {type: file, path: out}
  ops: {type: webhook, url: "http://127.0.0.1:9/ops"}
jobs:
  hourly: {select: [shop.orders], cron: "@hourly", webhook: {scheme: github, secret: "${HOOK_SECRET}"}, on_failure: [ops]}
"""
ENVIRON = {"HOOK_SECRET": "wh-s3cret-of-the-file"}
NIGHTLY = {"select": ["shop", "out"], "cron": "0 2 * * *", "timezone": "Europe/Berlin", "on_failure": ["ops"]}


class Remembering(Orchestrator):
    """Dagster as a list of what it was asked for; `away` as long as a test says."""

    def __init__(self) -> None:
        super().__init__(Path("."))
        self.asked: list[tuple[str, str, dict[str, str], tuple[str, ...]]] = []
        self.reloads = threading.Semaphore(0)
        self.away: list[Exception] = []

    def submit(self, job: str, run_id: str, tags: Mapping[str, str], select: Sequence[str] = ()) -> None:
        if self.away:
            raise self.away.pop(0)
        self.asked.append((job, run_id, dict(tags), tuple(select)))

    def reload(self) -> None:
        self.reloads.release()

    def runs(self, *, job: str = "", **_: Any) -> list[Run]:
        return []

    def close(self) -> None:
        """Nothing was opened."""


def seen(condition: Callable[[], bool]) -> bool:
    """Whether something comes true, looked at again and again."""
    until = time.monotonic() + 30
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return condition()


def place(folder: Path, url: str = "") -> Settings:
    """The project in a folder of its own."""
    (folder / "in").mkdir()
    (folder / "in" / "orders.csv").write_text("id\n1\n")
    (folder / "in" / "returns.csv").write_text("id\n1\n")
    (folder / "muxly.yaml").write_text(PROJECT)
    return Settings(folder / "muxly.yaml", folder / "home", url or f"sqlite:///{folder}/home/state.db", str(folder / "lake"))


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return place(tmp_path, "" if request.param == "sqlite" else str(request.getfixturevalue("postgres")))


@pytest.fixture
def dagster() -> Remembering:
    return Remembering()


@pytest.fixture
def api(settings: Settings, dagster: Remembering) -> Iterator[Api]:
    service = Service.open(settings, ENVIRON, dagster)
    yield Api(service)
    service.close()


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One API for all tests whose requests are refused."""
    service = Service.open(place(tmp_path_factory.mktemp("jobs")), ENVIRON, Remembering())
    yield Api(service)
    service.close()


def test_a_job_is_made_shown_changed_and_deleted(api: Api, dagster: Remembering) -> None:
    made = api("POST", "/v1/jobs", {"name": "nightly", **NIGHTLY})
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/jobs/nightly"
    shown = api("GET", "/v1/jobs/nightly")
    assert shown.headers["etag"] == made.headers["etag"]
    job = shown.json()
    assert (job["origin"], job["spec"], job["version"], job["paused"]) == ("api", NIGHTLY, 1, False)
    assert job["assets"] == ["shop.orders", "shop.returns", "out.archive"]
    assert job["next_run_at"]
    assert dagster.reloads.acquire(timeout=20), "Dagster loads the project anew"

    assert api("PUT", "/v1/jobs/nightly", {"select": ["shop"]}).status_code == 428
    stale = api("PUT", "/v1/jobs/nightly", {"select": ["shop"]}, if_match='"7-00000000"')
    assert stale.status_code == 412
    assert "GET /v1/jobs/nightly" in stale.json()["do"]
    changed = api("PATCH", "/v1/jobs/nightly", {"cron": "@daily", "timezone": None}, if_match=shown.headers["etag"])
    assert changed.status_code == 200
    assert changed.json()["spec"] == {"select": ["shop", "out"], "cron": "@daily", "on_failure": ["ops"]}
    assert changed.json()["version"] == 2
    replaced = api("PUT", "/v1/jobs/nightly", {"select": ["out"]}, if_match=f'"x", {changed.headers["etag"]}')
    assert replaced.json()["assets"] == ["out.archive"]
    assert replaced.json()["next_run_at"] is None

    assert api("DELETE", "/v1/jobs/nightly", if_match=made.headers["etag"]).status_code == 412
    assert api("DELETE", "/v1/jobs/nightly").status_code == 204
    gone = api("GET", "/v1/jobs/nightly")
    assert gone.status_code == 404
    assert gone.json()["title"] == "Not found"
    again = api("POST", "/v1/jobs", {"name": "nightly", **NIGHTLY})
    assert again.headers["etag"] != made.headers["etag"], "a job that is made anew is another one"


def test_jobs_of_the_file_are_listed_beside_it_and_only_paused(api: Api) -> None:
    api("POST", "/v1/jobs", {"name": "nightly", **NIGHTLY})
    listed = api("GET", "/v1/jobs").json()["items"]
    assert [(job["name"], job["origin"]) for job in listed] == [("hourly", "file"), ("nightly", "api")]
    first = api("GET", "/v1/jobs?limit=1").json()
    assert [job["name"] for job in api("GET", f"/v1/jobs?cursor={first['next']}").json()["items"]] == ["nightly"]
    hourly = listed[0]
    assert hourly["at"].endswith("muxly.yaml:13:3")
    assert hourly["webhook"] == "/v1/hooks/hourly"
    assert hourly["spec"]["webhook"]["secret"] == ["**********"]
    assert "wh-s3cret" not in str(listed)
    for refused in (
        api("PUT", "/v1/jobs/hourly", {"select": ["shop"]}, if_match="*"),
        api("PATCH", "/v1/jobs/hourly", {"cron": "@daily"}, if_match="*"),
        api("DELETE", "/v1/jobs/hourly"),
        api("POST", "/v1/jobs", {"name": "hourly", "select": ["shop"]}),
    ):
        assert refused.status_code == 409
        assert "muxly.yaml:13:3" in refused.json()["detail"]
    paused = api("POST", "/v1/jobs/hourly/pause")
    assert paused.status_code == 200
    assert paused.json()["paused"]
    assert paused.json()["next_run_at"] is None
    assert api.service.state.jobs.is_paused("hourly")
    resumed = api("POST", "/v1/jobs/hourly/resume").json()
    assert not resumed["paused"]
    assert resumed["next_run_at"]
    assert api("POST", "/v1/jobs/weekly/pause").status_code == 404


def test_a_job_of_the_same_name_as_one_of_the_file_can_be_deleted_and_that_one_stays(api: Api, settings: Settings) -> None:
    api("POST", "/v1/jobs", {"name": "nightly", **NIGHTLY})
    api("POST", "/v1/jobs/nightly/pause")
    settings.project.write_text(PROJECT + "  nightly: {select: [shop]}\n")
    api.service.project.reload()
    shown = api("GET", "/v1/jobs/nightly").json()
    assert (shown["origin"], shown["spec"]) == ("file", {"select": ["shop"]})
    assert "give one of the two another name" in shown["problems"][0]["do"]
    start = api("POST", "/v1/jobs/nightly/runs").json()["id"]
    assert api("PATCH", "/v1/jobs/nightly", {"cron": "@daily"}, if_match="*").status_code == 409
    assert api("DELETE", "/v1/jobs/nightly").status_code == 204
    left = api("GET", "/v1/jobs/nightly").json()
    assert (left["origin"], left["problems"], left["paused"]) == ("file", [], True)
    assert api.service.state.jobs.made() == []
    found = api.service.state.starts.find(start)
    assert found is not None and found.ended is None
    assert api("DELETE", "/v1/jobs/nightly").status_code == 409


def test_the_same_name_is_taken_once(api: Api) -> None:
    assert api("POST", "/v1/jobs", {"name": "nightly", **NIGHTLY}).status_code == 201
    taken = api("POST", "/v1/jobs", {"name": "nightly", "select": ["out"]})
    assert taken.status_code == 409
    assert taken.json()["detail"] == "there is a job nightly: it was made by the API"


@pytest.mark.parametrize(
    ("spec", "at", "what", "do"),
    [
        ({"select": ["shoop"]}, "select.0", "there is nothing called shoop to run", "did you mean shop?"),
        ({"select": ["shop"], "cron": "often"}, "cron", "'often' is not a cron expression", "write five fields"),
        ({"select": ["shop"], "cron": "0 0 31 4 mon"}, "cron", "Dagster finds no moment for", "days that there are"),
        ({"select": ["shop"], "cron": "@daily", "timezone": "Berlin"}, "timezone", "there is no time zone Berlin", "Europe/Berlin"),
        ({"select": ["shop"], "crom": "@daily"}, "crom", "is not known here", "did you mean cron?"),
        ({"select": []}, "select", "should have at least 1 item", ""),
        ({}, "select", "is missing", "add it"),
        ({"select": ["hourly"]}, "select.0", "hourly is a job", ""),
        ({"select": ["shop"], "on_failure": ["opps"]}, "on_failure.0", "there is no destination opps", "did you mean ops?"),
        ({"select": ["shop"], "jitter": "30s"}, "", "has jitter but no cron", ""),
        ({"select": ["shop"], "cron": "@daily", "jitter": "soon"}, "jitter", "is not a length of time", ""),
        ({"select": ["shop"], "description": "${NOT_SET}"}, "description", "needs the environment variable NOT_SET", "set NOT_SET"),
        ({"select": ["shop"], "webhook": {"scheme": "github", "secret": "wh-in-clear"}}, "webhook.secret", "is a secret", "${NAME}"),
        (
            {"select": ["shop"], "webhook": {"scheme": "github", "secret": ["${A}", "${B:-wh-in-clear}"]}},
            "webhook.secret.1",
            "is a secret",
            "",
        ),
        (
            {"select": ["shop"], "on_failure": {"ops": {"auth": {"kind": "bearer", "token": "wh-in-clear"}}}},
            "on_failure.ops",
            "is a secret",
            "",
        ),
        ({"select": ["shop"], "description": "\0"}, "", "NUL", ""),
    ],
)
def test_what_would_not_do_in_the_file_does_not_do_here(unchanged: Api, spec: dict[str, Any], at: str, what: str, do: str) -> None:
    answer = unchanged("POST", "/v1/jobs", {"name": "nightly", **spec})
    assert answer.status_code == 422
    [problem] = [each for each in answer.json()["errors"] if what in each["what"]]
    assert problem["at"].startswith(f"body.{at}".rstrip("."))
    assert do in problem.get("do", "")
    assert "wh-in-clear" not in answer.text
    assert unchanged.service.state.jobs.read("nightly") is None


@pytest.mark.parametrize("name", ["Nightly", "", "1st", "muxly_x", "out", "shop", "n" * 201, "n" * 256, "a\0", 7, None])
def test_names_are_as_in_the_file(unchanged: Api, name: Any) -> None:
    answer = unchanged("POST", "/v1/jobs", {"name": name, **NIGHTLY})
    assert answer.status_code == 422, answer.text
    assert unchanged.service.state.jobs.made() == []


@pytest.mark.parametrize("name", ["class", "type", "shop__orders", "out__archive"])
def test_no_name_keeps_dagster_from_loading_the_project(unchanged: Api, name: str) -> None:
    answer = unchanged("POST", "/v1/jobs", {"name": name, **NIGHTLY})
    assert answer.status_code == 422, answer.text
    assert "in Dagster" in answer.text or "Dagster keeps for itself" in answer.text
    assert unchanged.service.state.jobs.made() == []


def test_rubbish_is_refused(unchanged: Api) -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    assert unchanged("POST", "/v1/jobs", {"name": "nightly", "select": deep}).status_code == 422
    assert unchanged("POST", "/v1/jobs", {"name": "nightly", "select": ["x" * 70_000]}).status_code == 413
    assert unchanged("POST", "/v1/jobs", [1]).status_code == 422


def test_a_reference_is_kept_as_it_stands_and_filled_when_the_project_is_loaded(api: Api) -> None:
    spec = {"select": ["shop"], "webhook": {"scheme": "github", "secret": "${HOOK_SECRET}"}}
    made = api("POST", "/v1/jobs", {"name": "on_push", **spec})
    assert made.status_code == 201
    assert made.json()["spec"] == spec
    stored = api.service.state.jobs.read("on_push")
    assert stored is not None
    assert stored.spec == spec
    webhook = api.service.runtime.assembly.jobs["on_push"].webhook
    assert webhook is not None
    assert webhook.secrets == ("wh-s3cret-of-the-file",)


def test_a_job_that_no_longer_fits_is_left_out_and_shown(api: Api, settings: Settings) -> None:
    api("POST", "/v1/jobs", {"name": "both", "select": ["shop.returns", "out"]})
    settings.project.write_text(PROJECT.replace(", returns]", "]").replace("hourly:", "often:"))
    api.service.project.reload()
    assembly = api.service.runtime.assembly
    assert list(assembly.jobs) == ["often"]
    assert any("jobs.both.select.0: there is nothing called shop.returns" in str(warning) for warning in assembly.warnings)
    shown = api("GET", "/v1/jobs/both").json()
    assert [(each["at"], each["what"]) for each in shown["problems"]] == [("select.0", "there is nothing called shop.returns to run")]
    assert api("POST", "/v1/jobs/both/runs").status_code == 409
    mended = api("PUT", "/v1/jobs/both", {"select": ["out"]}, if_match="*")
    assert mended.json()["problems"] == []


def test_another_process_notices(api: Api, settings: Settings) -> None:
    other = Service.open(settings, ENVIRON, Remembering())
    try:
        api("POST", "/v1/jobs", {"name": "nightly", **NIGHTLY})
        assert seen(lambda: "nightly" in other.runtime.assembly.jobs)
        api("DELETE", "/v1/jobs/nightly")
        assert seen(lambda: "nightly" not in other.runtime.assembly.jobs)
    finally:
        other.close()


def test_a_run_is_started_with_what_it_is_given(api: Api, dagster: Remembering) -> None:
    asked = {"select": ["shop.orders"], "from_start": True, "past_guard": True, "parameters": {"since": "2026"}, "tags": {"team": "ops"}}
    answer = api("POST", "/v1/jobs/hourly/runs", asked)
    assert answer.status_code == 202
    run = answer.json()["id"]
    assert answer.headers["location"] == f"/v1/runs/{run}"
    api.service.starting.close()
    [(job, run_id, tags, selected)] = dagster.asked
    assert (job, run_id, selected) == ("hourly", run, ("shop.orders",))
    assert tags["muxly/parameters"] == '{"since":"2026"}'
    assert (tags["muxly/from_start"], tags["muxly/past_guard"], tags["team"]) == ("true", "true", "ops")
    assert api("GET", "/v1/jobs/hourly/runs").json()["items"] == []


def test_the_same_key_starts_the_same_run(api: Api, dagster: Remembering) -> None:
    first = api("POST", "/v1/jobs/hourly/runs", {"tags": {"a": "1"}}, idempotency_key="k1")
    again = api("POST", "/v1/jobs/hourly/runs", {"tags": {"a": "1"}}, idempotency_key="k1")
    assert again.status_code == 202
    assert (again.json()["id"], again.json()["known"]) == (first.json()["id"], True)
    assert api("POST", "/v1/jobs/hourly/runs", {"tags": {"a": "2"}}, idempotency_key="k1").status_code == 422
    assert api("POST", "/v1/jobs/hourly/runs", idempotency_key="k2").json()["id"] != first.json()["id"]
    assert seen(lambda: len(dagster.asked) == 2)
    api.service.starting.close()
    assert len(dagster.asked) == 2


def test_a_start_outlives_dagster_being_down(api: Api, dagster: Remembering) -> None:
    dagster.away.append(RetryLater("Dagster is away"))
    run = api("POST", "/v1/jobs/hourly/runs").json()["id"]
    api.service.starting.close()
    assert dagster.asked == []
    [start] = api.service.state.starts.open("hourly")
    assert (start.id, start.cause, start.submitted_at) == (run, "api", None), "the sensor finds it due"


def test_a_deleted_job_starts_nothing_more(api: Api, dagster: Remembering) -> None:
    dagster.away.append(ConfigurationError("Dagster knows no such job"))
    api("POST", "/v1/jobs", {"name": "nightly", **NIGHTLY})
    api("POST", "/v1/jobs/nightly/runs")
    api.service.starting.close()
    assert len(api.service.state.starts.open("nightly")) == 1
    api("DELETE", "/v1/jobs/nightly")
    assert api.service.state.starts.open("nightly") == []


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"select": ["shop.returns"]}, "not what the job hourly runs"),
        ({"select": ["nothing"]}, "there is nothing called nothing"),
        ({"tags": {"muxly/start": "x"}}, "keeps for itself"),
        ({"tags": {"a b": "x"}}, "is no tag"),
        ({"tags": {"a": "\0"}}, "is no text"),
        ({"parameters": {"a": "x" * 20_000}}, "16 KiB"),
        ({"parameters": {"a": "\0"}}, "NUL"),
        ({"parameters": {"a": 2**80}}, "no word"),
        ({"form_start": True}, "form_start"),
    ],
)
def test_a_run_that_cannot_be_is_refused(unchanged: Api, body: dict[str, Any], what: str) -> None:
    answer = unchanged("POST", "/v1/jobs/hourly/runs", body)
    assert answer.status_code == 422
    assert what in answer.text
    assert unchanged("POST", "/v1/jobs/weekly/runs").status_code == 404
    assert unchanged.service.state.starts.open("hourly") == []
