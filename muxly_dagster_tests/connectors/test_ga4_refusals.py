"""What Google Analytics refuses: every error says what to do, the cursor stays where it was, and nothing is lost."""

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.analytics.data_v1beta import types

from muxly_dagster.connectors.ga4 import Ga4, Ga4Pull
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError, SourceError
from muxly_dagster.testing.connectors import Pulled
from muxly_dagster_tests.peers.ga4 import TOKENS_SPENT, Analytics, at_once, because


@pytest.fixture
def analytics() -> Iterator[Analytics]:
    with Analytics() as analytics:
        yield analytics


def pull(analytics: Analytics, connector: Any = None, **settings: Any) -> list[Any]:
    named = {"stream": "report", "dimensions": ["country"], "metrics": ["activeUsers"], **settings}
    return list((connector or analytics.connector()).pull(Ga4Pull.model_validate(named), None, None))


def refusal(analytics: Analytics, code: Any, text: str, *details: Any, connector: Any = None) -> MuxlyError:
    """What a pull says when the first request for records ends like this."""
    analytics.refusals = [(code, text, details)]
    with pytest.raises(MuxlyError) as caught:
        pull(analytics, connector)
    assert caught.value.where == "properties/1"
    return caught.value


def filled(analytics: Analytics, days: int) -> None:
    for back in range(days):
        analytics.fact(analytics.today() - dt.timedelta(days=back), pagePath=f"/{back}", activeUsers=0)


# ---- quotas


def test_a_quota_that_runs_out_in_mid_report_ends_the_pull_and_the_next_goes_on(analytics: Analytics, tmp_path: Path) -> None:
    filled(analytics, 40)
    analytics.pull = {**analytics.pull, "start": "39d", "page_rows": 3}
    pulled = Pulled(analytics, tmp_path)
    analytics.break_after(3)  # the question what day it is, five slices, the rest of the first of them
    with pytest.raises(RetryLater) as caught:
        pulled.run()
    through = analytics.today() - dt.timedelta(days=39 - 6)
    assert f"all days through {through} are stored" in caught.value.what
    assert f"goes on with {through + dt.timedelta(days=1)}" in caught.value.what
    assert caught.value.after == 3600 and "hour" in caught.value.do
    analytics.mend()
    pulled.run()
    assert len(pulled.texts()) == len(pulled.ops()) == 40


def test_at_its_floor_a_quota_ends_the_pull_behind_a_whole_slice(analytics: Analytics, tmp_path: Path) -> None:
    filled(analytics, 80)
    analytics.pull = {**analytics.pull, "start": "79d", "page_rows": 100}
    analytics.left["tokens_per_project_per_hour"] = 1400 + 5
    pulled = Pulled(analytics, tmp_path)
    with pytest.raises(RetryLater, match="1,399 of 14,000 tokens an hour for one project are left, and `quota_floor` keeps 10%"):
        pulled.run()
    assert len(pulled.texts()) == 35, "five slices of a week, and not one request more"
    asked = len(analytics.seen)
    with pytest.raises(RetryLater, match="all days through"):
        pulled.run()
    assert len(analytics.seen) == asked + 1
    analytics.left["tokens_per_project_per_hour"] = 14_000
    pulled.run()
    assert len(pulled.texts()) == len(pulled.ops()) == 80


def test_a_day_of_quota_comes_back_at_midnight_in_california(analytics: Analytics) -> None:
    analytics.left["tokens_per_day"] = 10
    with pytest.raises(RetryLater, match="tokens a day") as caught:
        pull(analytics)
    assert 0 < (caught.value.after or 0) <= 25 * 3600


def test_what_is_much_for_a_standard_property_may_be_little_for_analytics_360(analytics: Analytics) -> None:
    analytics.left = {"tokens_per_day": 1_900_000, "tokens_per_hour": 39_000}
    with pytest.raises(RetryLater, match="38,999 of 400,000 tokens an hour"):
        pull(analytics)
    assert pull(analytics, analytics.connector(quota_floor=0.05))


# ---- troubles that pass


def test_a_server_in_trouble_is_asked_again_and_not_for_ever(analytics: Analytics) -> None:
    analytics.fact(analytics.today(), country="NO", activeUsers=1)
    trouble = (grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable.", (at_once(),))
    analytics.refusals = [trouble] * 3
    assert [len(batch.rows) for batch in pull(analytics) if len(batch.rows)] == [1]
    analytics.refusals = [trouble] * 4
    with pytest.raises(RetryLater, match="cannot answer now"):
        pull(analytics)
    assert len(analytics.refusals) == 0


def test_a_quota_that_is_used_up_in_the_first_request_says_how_far_earlier_pulls_came(analytics: Analytics) -> None:
    through = analytics.today() - dt.timedelta(days=5)
    connector = analytics.connector()
    settings = Ga4Pull.model_validate({"stream": "report", "dimensions": ["country"], "metrics": ["activeUsers"]})
    for cursor, said in (({"property": "properties/1", "through": f"{through}"}, f"days through {through}"), (None, "no day was read yet")):
        analytics.refusals = [(grpc.StatusCode.RESOURCE_EXHAUSTED, TOKENS_SPENT, ())]
        with pytest.raises(RetryLater, match=said):
            list(connector.pull(settings, cursor, None))


def test_a_token_that_ran_out_is_asked_for_again_once(analytics: Analytics) -> None:
    lost = (grpc.StatusCode.UNAUTHENTICATED, "Request had invalid authentication credentials.", ())
    analytics.refusals = [lost]
    pull(analytics)
    assert len(analytics.token_requests) == 2
    analytics.refusals = [lost, lost]
    with pytest.raises(SignInError, match="refuses the access token"):
        pull(analytics)


def test_googles_sign_in_that_cannot_be_reached_is_left_for_later(analytics: Analytics) -> None:
    key = json.loads(analytics.key("muxly@example.iam.gserviceaccount.com")) | {"token_uri": "http://127.0.0.1:9/token"}
    connector = analytics.connector(auth={"kind": "service_account", "key": json.dumps(key)})
    with pytest.raises(RetryLater, match="sign-in cannot be reached"):
        pull(analytics, connector)


# ---- names and settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dimensions": ["contry"]}, "contry: the property has no dimension of this name; did you mean country?"),
        ({"metrics": ["activeUser"]}, "activeUser: the property has no metric of this name; did you mean activeUsers?"),
        ({"metrics": ["country"]}, "country: is a dimension, not a metric; move it to `dimensions`"),
        ({"dimensions": ["sessions"]}, "sessions: is a metric, not a dimension; move it to `metrics`"),
    ],
)
def test_an_unknown_name_is_told_with_what_was_perhaps_meant(settings: dict[str, Any], said: str, analytics: Analytics) -> None:
    settings = {"dimensions": ["city"], "metrics": ["bounceRate"], **settings}
    with pytest.raises(ConfigurationError) as caught:
        pull(analytics, **settings)
    assert said in str(caught.value)
    found = analytics.connector().check_pull(Ga4Pull.model_validate({"stream": "report", **settings}))
    assert said in found


def test_what_does_not_go_together_is_named_by_check(analytics: Analytics) -> None:
    settings = Ga4Pull(stream="report", dimensions=["country", "itemName"], metrics=["activeUsers", "sessions"])
    (said,) = analytics.connector().check_pull(settings)
    assert said.startswith("sessions: cannot be asked together with date, country, itemName, activeUsers")
    with pytest.raises(ConfigurationError, match="Please remove itemName"):
        pull(analytics, dimensions=["itemName"], metrics=["sessions"])


def test_a_pull_that_is_right_has_nothing_to_tell_and_reads_nothing(analytics: Analytics) -> None:
    settings = Ga4Pull(stream="report", dimensions=["country", "trafficType"], metrics=["activeUsers", "conversions"])
    assert analytics.connector().check_pull(settings) == []
    assert not analytics.requests(types.RunReportRequest)


def test_check_says_why_it_cannot_ask(analytics: Analytics) -> None:
    (said,) = analytics.connector(wrong=True).check_pull(Ga4Pull(stream="report", metrics=["activeUsers"]))
    assert said.startswith("Google gives no access token: ") and "check `auth`" in said


def test_realtime_reports_have_names_of_their_own(analytics: Analytics) -> None:
    settings: dict[str, Any] = {"stream": "now", "realtime": True, "dimensions": ["minuteAgo", "customUser:plan"], "metrics": ["sessions"]}
    expected = ["minuteAgo: a realtime report has no dimension of this name; did you mean minutesAgo?"]
    found = analytics.connector().check_pull(Ga4Pull.model_validate(settings))
    assert [*found[:1], len(found)] == [*expected, 2]
    with pytest.raises(ConfigurationError, match="did you mean minutesAgo"):
        pull(analytics, **settings)


@pytest.mark.parametrize("wrong", [{"filter": {"feldName": "country"}}, {"country": "Norway"}])
def test_a_filter_that_is_none_is_told_with_an_example(wrong: dict[str, Any], analytics: Analytics) -> None:
    with pytest.raises(ConfigurationError, match="`dimension_filter` is no FilterExpression") as caught:
        pull(analytics, dimension_filter=wrong)
    assert "stringFilter" in str(caught.value)
    assert "no FilterExpression" in analytics.connector().check_pull(_with_filter(wrong))[0]


def _with_filter(wrong: dict[str, Any]) -> Ga4Pull:
    return Ga4Pull(stream="report", metrics=["activeUsers"], dimension_filter=wrong)


def test_a_filter_on_an_unknown_name_is_told(analytics: Analytics) -> None:
    found = analytics.connector().check_pull(_with_filter({"filter": {"fieldName": "contry", "stringFilter": {"value": "x"}}}))
    assert found == ["contry: a filter names it, and the property has nothing of this name; did you mean country?"]


# ---- rights


def test_a_scope_that_is_missing_is_named(analytics: Analytics) -> None:
    text = "Request had insufficient authentication scopes."
    error = refusal(analytics, grpc.StatusCode.PERMISSION_DENIED, text, because("ACCESS_TOKEN_SCOPE_INSUFFICIENT"))
    assert isinstance(error, SignInError)
    assert "https://www.googleapis.com/auth/analytics.readonly" in error.what and "sign in again" in error.do


def test_an_api_that_is_not_enabled_is_told_with_the_page_to_do_it(analytics: Analytics) -> None:
    text = "Google Analytics Data API has not been used in project 1 before or it is disabled."
    error = refusal(analytics, grpc.StatusCode.PERMISSION_DENIED, text, because("SERVICE_DISABLED", activationUrl="https://example.com/on"))
    assert "https://example.com/on" in error.do


def test_a_property_that_may_not_be_read_is_told_with_the_account_that_needs_the_role(analytics: Analytics) -> None:
    check = analytics.connector(property="properties/2").test_connection()
    assert check.status == "failed" and "muxly@example.iam.gserviceaccount.com may not read this property" in check.what
    assert "Viewer" in check.do and "`property`" in check.do


def test_other_refusals_are_told_as_they_are(analytics: Analytics) -> None:
    error = refusal(analytics, grpc.StatusCode.NOT_FOUND, "Requested entity was not found.")
    assert isinstance(error, ConfigurationError) and "measurement id" in str(error)
    assert isinstance(refusal(analytics, grpc.StatusCode.FAILED_PRECONDITION, "Not now."), SourceError)
    kind = refusal(analytics, grpc.StatusCode.INVALID_ARGUMENT, "Requests are limited to 9 dimensions.")
    assert isinstance(kind, ConfigurationError) and "limited to 9 dimensions" in str(kind)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "not there"),
        ("not json", "is not JSON"),
        ('{"installed": {}}', "oauth2"),
        ('{"type": "service_account"}', "lacks"),
        ('{"type": "service_account", "client_email": "a@b", "token_uri": "x", "private_key": "SECRET"}', "cannot be read"),
    ],
)
def test_a_wrong_key_file_is_told_before_anything_is_asked(content: str | None, said: str, analytics: Analytics, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content)
    connector = analytics.connector(auth={"kind": "service_account", "key_file": str(path)})
    with pytest.raises(ConfigurationError) as caught:
        pull(analytics, connector)
    assert said in str(caught.value) and "SECRET" not in str(caught.value)
    check = connector.test_connection()
    assert check.status == "failed" and check.do
    assert not analytics.seen


def _by_oauth(analytics: Analytics, refresh_token: str) -> Ga4:
    auth: dict[str, Any] = {"kind": "oauth2", "client_id": "me", "client_secret": "the-client-secret", "refresh_token": refresh_token}
    return Ga4.model_validate({"property": 1, "auth": auth | {"token_url": analytics.token_url}, "endpoint": analytics.endpoint})


def test_a_user_signs_in_by_oauth_and_a_token_that_ran_out_is_renewed(analytics: Analytics) -> None:
    analytics.fact(analytics.today(), country="NO", activeUsers=1)
    analytics.fail_once(401)
    assert [len(batch.rows) for batch in pull(analytics, _by_oauth(analytics, "the-refresh-token")) if len(batch.rows)] == [1]
    assert [form["grant_type"] for form in analytics.token_requests] == ["refresh_token", "refresh_token"]


def test_a_refresh_token_that_was_withdrawn_asks_to_sign_in_again(analytics: Analytics) -> None:
    connector = _by_oauth(analytics, "an-old-refresh-token")
    with pytest.raises(SignInError) as caught:
        pull(analytics, connector)
    assert caught.value.do
    told: Sequence[str] = (str(caught.value), repr(connector))
    assert not [text for text in told if "an-old-refresh-token" in text or "the-client-secret" in text]


def test_tokens_that_are_spent_are_never_asked_for_again_at_once(analytics: Analytics) -> None:
    assert isinstance(refusal(analytics, grpc.StatusCode.RESOURCE_EXHAUSTED, TOKENS_SPENT, at_once()), RetryLater)
    assert len(analytics.seen) == 1
