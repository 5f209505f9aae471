"""Muxly's errors in Dagster's words: what is shown, what is tried again, what never shows."""

import dagster as dg
import httpx
import pytest

from muxly_dagster.defs.failures import MAX_RETRIES, as_failure, dagster_errors
from muxly_dagster.defs.project import assembly_definitions
from muxly_dagster.errors import BusyError, ConfigurationError, MuxlyError, RetryLater, SignInError, SourceError
from muxly_dagster.settings import Settings
from muxly_dagster_tests.defs.shop import SECRET, Shop, assembly


def pull_once(shop: Shop, settings: Settings, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = assembly_definitions(assembly(shop), settings).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, raise_on_error=False, asset_selection=[dg.AssetKey(["shop", "orders"])])


def test_a_failure_says_what_happened_and_what_to_do() -> None:
    failure = as_failure(SourceError("the API answered HTML", do="check base_url", where="http://127.0.0.1/orders"))

    assert failure.description == "http://127.0.0.1/orders: the API answered HTML\n  → check base_url"
    assert {name: value.value for name, value in failure.metadata.items()} == {
        "what": "the API answered HTML",
        "do": "check base_url",
        "where": "http://127.0.0.1/orders",
    }


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConfigurationError("a"), False),
        (SignInError("b"), False),
        (SourceError("c"), True),
        (RetryLater("d"), True),
        (MuxlyError("e"), True),
    ],
)
def test_only_what_may_pass_by_itself_allows_retries(error: MuxlyError, again: bool) -> None:
    assert as_failure(error).allow_retries is again


@pytest.mark.parametrize("error", [RetryLater("down"), BusyError("taken")])
def test_passing_troubles_are_tried_again_with_growing_patience(error: MuxlyError, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    waits = []
    for attempt in range(MAX_RETRIES):
        with pytest.raises(dg.RetryRequested) as caught, dagster_errors(attempt):
            raise error
        waits.append(caught.value.seconds_to_wait)
    with pytest.raises(dg.Failure), dagster_errors(MAX_RETRIES):
        raise error

    assert waits == [15.0, 30.0, 60.0]


def test_the_wait_that_was_asked_for_is_honoured_and_a_long_one_left_to_the_next_run() -> None:
    with pytest.raises(dg.RetryRequested) as caught, dagster_errors(0):
        raise RetryLater("slow down", after=120)
    assert caught.value.seconds_to_wait is not None
    assert 120 <= caught.value.seconds_to_wait <= 121
    with pytest.raises(dg.Failure, match="slow down"), dagster_errors(0):
        raise RetryLater("slow down", after=3600)


def test_a_pull_that_meets_a_passing_trouble_succeeds_at_the_second_try(
    shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    shop._troubles.append(RetryLater("the API answered 503", after=0))
    result = pull_once(shop, shop_settings, instance)

    assert result.success
    assert [event.event_type_value for event in result.all_events if "RETRY" in event.event_type_value] == ["STEP_UP_FOR_RETRY"]


def test_a_wrong_credential_fails_at_once_with_its_next_step(shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance) -> None:
    shop._troubles.append(SignInError("the shop refuses the token", do="renew it"))
    result = pull_once(shop, shop_settings, instance)

    (failed,) = [event for event in result.all_events if event.is_step_failure]
    shown = failed.step_failure_data.user_failure_data
    assert shown is not None
    assert shown.description == "the shop refuses the token\n  → renew it"
    assert not [event for event in result.all_events if "RETRY" in event.event_type_value]


@pytest.mark.parametrize("kind", [SignInError, RetryLater])
def test_what_lies_beneath_an_error_is_not_shown(
    kind: type[MuxlyError], shop: Shop, shop_settings: Settings, instance: dg.DagsterInstance
) -> None:
    trouble = kind("the shop cannot be reached")
    trouble.__cause__ = httpx.ConnectError(f"http://127.0.0.1/?key={SECRET}")
    shop._troubles.append(trouble)
    if isinstance(trouble, RetryLater):
        trouble.after = 0
    result = pull_once(shop, shop_settings, instance)

    shown = " ".join(str(event) for event in result.all_events)
    assert "the shop cannot be reached" in shown
    assert SECRET not in shown
