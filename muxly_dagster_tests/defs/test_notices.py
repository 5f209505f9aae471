"""Runs that fail are told of, once, to those who want to know; a destination that is down hears of them later."""

import dataclasses
import datetime as dt
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent
from pydantic import PrivateAttr

from muxly_dagster.assembly.notices import SAMPLE, TABLE, check_notices, delivery_of
from muxly_dagster.assembly.parts import Told
from muxly_dagster.catalog import destination_class
from muxly_dagster.defs import notices
from muxly_dagster.defs.metadata import asset_key
from muxly_dagster.defs.notices import NOTICES
from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.destination import Delivery, Destination, Receipt
from muxly_dagster.errors import ConfigurationError, RetryLater, SignInError
from muxly_dagster.project.models import JobSpec
from muxly_dagster.resource import CheckResult
from muxly_dagster.settings import Settings
from muxly_dagster_tests.defs.shop import Shop, assembly


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """Dagster's memory in files, as it is by default: a log for each run. One for all tests, each of which begins where the log ends."""
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        yield instance


class Board(Destination):
    """Keeps the notices that it gets; it fails as often as there are troubles."""

    type: ClassVar[str] = "board"
    title: ClassVar[str] = "Board"
    _taken: list[dict[str, Any]] = PrivateAttr(default_factory=list)
    _troubles: list[Exception] = PrivateAttr(default_factory=list)

    def deliver(self, delivery: Delivery) -> Receipt:
        if self._troubles:
            raise self._troubles.pop(0)
        self._taken += delivery.rows.to_pylist()
        return Receipt(len(delivery.rows))

    def check(self) -> CheckResult:
        return CheckResult("ok", "nothing")


class SlowBoard(Board):
    """Answers when it may."""

    type: ClassVar[str] = "slow_board"
    _may_answer: threading.Event = PrivateAttr(default_factory=threading.Event)

    def deliver(self, delivery: Delivery) -> Receipt:
        assert self._may_answer.wait(60)
        return super().deliver(delivery)


def board() -> Board:
    return Board.model_validate({})


def made(kind: str, **said: Any) -> Destination:
    """A destination of Muxly's own."""
    return destination_class(kind).model_validate(said)


class Place:
    """A project with two jobs, and the sensor that watches it."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance, **told: Told) -> None:
        self.shop, self.instance = Shop(), instance
        jobs = {"nightly": JobSpec(select=["shop"]), "hourly": JobSpec(select=["totals"])}
        whom = {"": Told()} | {name.replace("everybody", ""): each for name, each in told.items()}
        self.assembly = dataclasses.replace(assembly(self.shop, jobs=jobs), told=whom)
        self.definitions = assembly_definitions(self.assembly, settings, web_url="https://dagster.acme.example/")
        self.cursor: str | None = None

    def run(self, trouble: Exception | None) -> str:
        """Run the job `nightly`; answers the run's id."""
        self.shop._rows[:] = [{"id": 1, "amount": 1.0}]
        self.shop._troubles[:] = [trouble] if trouble else []
        return self.definitions.resolve_job_def("nightly").execute_in_process(instance=self.instance, raise_on_error=False).run_id

    def ended(self, job: str = "nightly", *, well: bool = False, assets: Sequence[str] = (), **tags: str) -> str:
        """A run that has ended, as Dagster's storage holds it; of no job where assets are named."""
        found = self.definitions.resolve_implicit_global_asset_job_def() if assets else self.definitions.resolve_job_def(job)
        chosen = frozenset(asset_key(name) for name in assets) or None
        run = self.instance.create_run_for_job(
            found, tags={name.replace("__", "/"): value for name, value in tags.items()}, asset_selection=chosen
        )
        if well:
            self.instance.report_dagster_event(DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, run.job_name), run.run_id)
        else:
            self.instance.report_run_failed(run, "the process is gone")
        return run.run_id

    def tick(self) -> str:
        """Evaluate the sensor, as after a restart of Dagster; answers what it says of itself."""
        given = {"muxly": dict(self.definitions.resources or {})["muxly"]}
        with dg.build_sensor_context(self.instance, cursor=self.cursor, definitions=self.definitions, resources=given) as context:
            result = self.definitions.resolve_sensor_def(NOTICES).evaluate_tick(context)
        self.cursor = result.cursor
        return result.skip_message or ""

    def waiting(self, **values: float) -> list[dict[str, Any]]:
        """What is still to be told; with values, as if it were so."""
        said: dict[str, Any] = json.loads(self.cursor or "{}")
        for each in said["waiting"]:
            each.update(values)
        self.cursor = json.dumps(said)
        waiting: list[dict[str, Any]] = said["waiting"]
        return waiting


def columns(board: Board, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in board._taken]


def test_a_run_that_failed_is_told_of_once_in_muxlys_words(shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    ops, boss = board(), board()
    place = Place(shop_settings, instance, everybody=Told({"boss": boss}), nightly=Told({"ops": ops, "boss": boss}))
    place.ended()
    assert place.tick() == "begins with the next run", "what was before it was switched on is old news"
    run = place.run(SignInError("the shop refuses the token", do="renew it", where="https://shop.example"))
    place.ended(well=True)
    assert place.tick() == "2 told, 0 wait"
    [notice] = ops._taken
    assert columns(boss, "run_id") == [(run,)]
    assert (notice["run_id"], notice["job"], notice["status"], notice["title"]) == (run, "nightly", "failed", "nightly failed")
    assert (notice["what"], notice["do"]) == ("shop.orders: https://shop.example: the shop refuses the token", "renew it")
    assert notice["failed"] == "shop.orders"
    assert notice["url"] == f"https://dagster.acme.example/runs/{run}"
    assert notice["started_at"] <= notice["ended_at"] <= dt.datetime.now(dt.UTC)
    assert place.tick() == "there is nothing to tell"
    assert len(ops._taken) == 1


def test_runs_of_others_and_those_that_dagster_tries_again_are_not_told_of(shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    ops = board()
    place = Place(shop_settings, instance, everybody=Told({"ops": ops}))
    place.tick()

    @dg.op
    def fails() -> None:
        raise ValueError("not our business")

    @dg.job
    def somebody_elses() -> None:
        fails()

    somebody_elses.execute_in_process(instance=instance, raise_on_error=False)
    place.ended(dagster__will_retry="true")
    assert place.tick() == "there is nothing to tell"


def test_a_job_that_succeeds_again_is_told_of(shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    ops = board()
    place = Place(shop_settings, instance, nightly=Told({"ops": ops}, {"ops": ops}), hourly=Told({"ops": ops}, {"ops": ops}))
    place.ended(well=True)
    place.tick()
    place.ended()
    place.ended("hourly", well=True)
    place.ended(well=True)
    place.ended(well=True)
    place.tick()
    assert columns(ops, "status", "title") == [("failed", "nightly failed"), ("recovered", "nightly works again")]


@pytest.mark.parametrize("trouble", [RetryLater("the basket is away", after=45), SignInError("no entry"), OSError("unexpected")])
def test_a_destination_that_is_down_hears_of_it_later_and_in_order(
    shop_settings: Settings, instance: dg.DagsterInstance, trouble: Exception
) -> None:
    down, up = board(), board()
    place = Place(shop_settings, instance, nightly=Told({"down": down, "up": up}))
    place.tick()
    down._troubles.append(trouble)
    first = place.ended()
    assert place.tick() == "1 told, 1 wait", "the other one does not wait for it"
    second = place.ended()
    assert place.tick() == "1 told, 2 wait", "not before its time, and not out of turn"
    assert columns(down, "run_id") == []
    place.waiting(due=0)
    assert place.tick() == "2 told, 0 wait"
    assert columns(down, "run_id") == columns(up, "run_id") == [(first,), (second,)]
    assert place.tick() == "there is nothing to tell"


def test_a_destination_that_does_not_answer_holds_nobody_up_and_is_told_once(
    shop_settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sensor that takes longer than a minute begins again where it began: the same notice would go out for ever, and no other one."""
    monkeypatch.setattr(notices, "_SECONDS_OF_ONE", 0.05)
    slow, ops = SlowBoard.model_validate({}), board()
    place = Place(shop_settings, instance, everybody=Told({"slow": slow, "ops": ops}))
    place.tick()
    run = place.ended()
    assert place.tick() == "1 told, 1 wait"
    assert columns(ops, "run_id") == [(run,)]
    place.waiting(due=0)
    assert place.tick() == "0 told, 1 wait"
    monkeypatch.setattr(notices, "_SECONDS_OF_ONE", 60.0)
    slow._may_answer.set()
    place.waiting(due=0)
    assert place.tick() == "1 told, 0 wait"
    assert columns(slow, "run_id") == [(run,)]


def test_a_notice_that_nobody_takes_is_given_up_after_a_day_and_makes_no_other(
    shop_settings: Settings, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    ops = board()
    place = Place(shop_settings, instance, everybody=Told({"ops": ops}))
    place.tick()
    ops._troubles += [RetryLater("away")] * 2
    place.ended()
    place.tick()
    [waits] = place.waiting()
    assert waits["tries"] == 1
    place.waiting(due=0, at=waits["at"] - 25 * 3600)
    assert place.tick() == "0 told, 0 wait"
    assert "was not told of the run" in caplog.text
    assert place.tick() == "there is nothing to tell"


def test_what_a_sensor_tries_again_and_again_is_told_of_when_it_turns_bad(shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    ops = board()
    place = Place(shop_settings, instance, everybody=Told({"ops": ops}))
    place.tick()
    for well in (False, False, True, False):
        place.ended(assets=["shop.orders"], well=well, dagster__sensor_name="muxly_inbox")
        place.ended(assets=["totals"], well=True, dagster__sensor_name="muxly_inbox")
    assert place.tick() == "2 told, 0 wait"
    assert columns(ops, "job", "title") == [("", "shop.orders failed")] * 2


def test_there_is_no_sensor_where_nobody_wants_to_know(shop_settings: Settings) -> None:
    definitions = assembly_definitions(assembly(), shop_settings)
    assert NOTICES not in [sensor.name for sensor in definitions.get_repository_def().sensor_defs]


def test_a_notice_is_the_same_in_every_repetition() -> None:
    basket = board()
    first, again = delivery_of(SAMPLE, "ops", basket), delivery_of(SAMPLE, "ops", basket)
    assert (first.id, first.after, first.upto) == (f"{TABLE}/ops", 0, 1)
    assert first.records()[0]["id"] == again.records()[0]["id"]
    assert first.records()[0]["data"]["url"].startswith("https://")


CHATS: dict[str, dict[str, Any]] = {
    "slack": {"webhook_url": "https://hooks.slack.com/services/T0/B0/x", "text": "{{ dealname }}"},
    "teams": {"url": "https://acme.example/workflow", "title": "{{ dealname }}", "facts": {"Owner": "{{ owner }}"}},
    "notify": {"urls": ["ntfys://acme"], "body": "{{ dealname }}"},
    "email": {"host": "smtp.acme.example", "from": "m@acme.example", "to": ["o@acme.example"], "html": "<b>{{ dealname }}</b>"},
}


@pytest.mark.parametrize("kind", CHATS)
def test_a_destination_made_for_records_says_notices_in_muxlys_words(kind: str) -> None:
    destination = made(kind, **CHATS[kind])
    [message] = destination.render(delivery_of(SAMPLE, "ops", destination))
    for said in ("nightly failed", "HubSpot refuses the token", "renew it", "dagster.acme.example"):
        assert said in message.text.replace("\\", "")
    check_notices("ops", destination)


@pytest.mark.parametrize(("kind", "field"), [("slack", "text"), ("teams", "title"), ("notify", "body"), ("email", "text")])
def test_a_destination_made_for_notices_says_them_in_its_own_words(kind: str, field: str) -> None:
    said = {name: value for name, value in CHATS[kind].items() if "dealname" not in str(value) and "owner" not in str(value)}
    destination = made(kind, **said, **{field: "Oh no, {{ job }}!"})
    [message] = destination.render(delivery_of(SAMPLE, "ops", destination))
    assert "Oh no, nightly!" in message.text
    assert "renew it" not in message.text


def test_a_destination_that_asks_for_other_columns_is_found_out_beforehand() -> None:
    slack = made("slack", token="xoxb-1", channel_by="owner_channel", text="{{ dealname }}")
    with pytest.raises(ConfigurationError, match="owner_channel"):
        check_notices("ops", slack)
