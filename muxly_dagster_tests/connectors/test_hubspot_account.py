"""HubSpot's account around the records: what it offers, allows and refuses, its owners and pipelines, and its webhooks."""

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from muxly_dagster.catalog import connector_class
from muxly_dagster.connectors.hubspot import Hubspot, HubspotPull
from muxly_dagster.connectors.hubspot.api import API_VERSION, budgets, sunset
from muxly_dagster.errors import ConfigurationError, RetryLater, SignInError, SourceError
from muxly_dagster.http.limits import Budgets
from muxly_dagster.services import Grant, Rate, Services, Used
from muxly_dagster.state import State
from muxly_dagster.state.turns import SharedTurns
from muxly_dagster.testing import Pulled
from muxly_dagster_tests.peers.hubspot import DEVELOPER_KEY, TOKEN, HubspotAccount


@pytest.fixture
def account() -> Iterator[HubspotAccount]:
    with HubspotAccount() as account:
        yield account


@pytest.fixture
def pulled(account: HubspotAccount, tmp_path: Path) -> Pulled:
    return Pulled(account, tmp_path)


def hubspot(**settings: Any) -> Hubspot:
    return Hubspot.model_validate({"auth": {"kind": "bearer", "token": TOKEN}, **settings})


# ---- what it offers -----------------------------------------------------------------------------------------------------


def test_it_is_found_by_its_name() -> None:
    assert connector_class("hubspot") is Hubspot


def test_standard_objects_directories_and_the_accounts_own_objects_are_streams(account: HubspotAccount) -> None:
    account.custom = [{"fullyQualifiedName": "p4711_machines", "name": "machines", "labels": {"plural": "Machines"}, "objectTypeId": "2-1"}]
    found = {stream.name: stream for stream in account.connector().streams()}
    assert {"contacts", "companies", "deals", "tickets", "products", "line_items", "quotes", "owners", "pipelines"} <= set(found)
    assert {"calls", "emails", "meetings", "notes", "tasks", "communications", "postal_mail"} <= set(found)
    assert (found["p4711_machines"].sync, found["p4711_machines"].description) == ("cursor", "Machines (custom)")
    assert (found["owners"].sync, found["contacts"].deletes) == ("full", True)


def test_an_app_that_may_not_see_custom_objects_still_has_the_others(account: HubspotAccount) -> None:
    account.missing_scopes = {"": "crm.schemas.custom.read"}
    assert "contacts" in {stream.name for stream in account.connector().streams()}


def test_a_custom_object_is_pulled_like_any_other(account: HubspotAccount, pulled: Pulled) -> None:
    account.define("p4711_machines", serial="string")
    account.pull = {"stream": "p4711_machines"}
    account.write("p4711_machines", 1, serial="A-1")
    pulled.run()
    account.write("p4711_machines", 1, serial="A-2")
    assert pulled.run().changed == 1
    assert pulled.rows()[1]["serial"] == "A-2"


@pytest.mark.parametrize(("stream", "do"), [("contact", "did you mean contacts"), ("engagements", "engagements are calls, emails")])
def test_an_unknown_stream_is_told_with_what_was_meant(stream: str, do: str) -> None:
    with pytest.raises(ConfigurationError, match=do):
        hubspot().stream(HubspotPull(stream=stream))


def test_the_account_is_told_with_what_is_left_of_the_day(account: HubspotAccount) -> None:
    metadata = account.connector().metadata()
    assert (metadata.account, metadata.api_version, metadata.sunset) == ("4711", "2026-09", dt.date(2028, 3, 1))
    assert "650,000 requests per day, 600,000 left until 2026-06-02T00:00:00Z" in metadata.limits
    assert metadata.details["timeZone"] == "Europe/Berlin"
    assert account.connector().test_connection().what == "account 4711 (STANDARD, Europe/Berlin)"


def test_versions_are_dates_and_stand_in_every_path() -> None:
    assert sunset("2026-03") == dt.date(2027, 9, 1)
    assert hubspot().api_version == API_VERSION
    assert hubspot(api_version="2027-03-beta").api_version == "2027-03-beta"
    for wrong in ("v3", "2026-13", "2026"):
        with pytest.raises(ValidationError):
            hubspot(api_version=wrong)


def test_another_version_asks_other_paths(account: HubspotAccount) -> None:
    account.settings = {"api_version": "2027-03"}
    assert account.connector().test_connection().status == "failed"
    assert {asked.path for asked in account.server.asked} == {"/account-info/2027-03/details"}


@pytest.mark.parametrize(
    "settings",
    [{"lag": "soon"}, {"auth": {"kind": "oauth2", "client_id": "a"}}, {"auth": {"kind": "none"}}, {"searches_per_second": 0}],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        hubspot(**settings)


def test_the_key_cannot_be_another_one() -> None:
    with pytest.raises(ConfigurationError, match="the key is `id`"):
        hubspot().stream(HubspotPull(stream="contacts", key=["email"]))


# ---- what it allows -----------------------------------------------------------------------------------------------------


def test_searches_have_a_budget_of_their_own() -> None:
    import threading

    held = Budgets(budgets(100, 5))
    searching = held.start("/crm/objects/2026-09/contacts/search", threading.Event())
    listing = held.start("/crm/objects/2026-09/contacts", threading.Event())
    assert len(searching) == len(listing) + 1
    assert [limit.path for limit in budgets(100, 5)] == [None, "/crm/objects/*/search"]


def test_all_processes_with_the_same_credentials_share_the_budgets(account: HubspotAccount, tmp_path: Path) -> None:
    state = State.open(f"sqlite:///{tmp_path / 'state.db'}", tmp_path)
    reserved: set[frozenset[str]] = set()

    class Noted(SharedTurns):
        def reserve(self, rates: Sequence[Rate], wanted: int, used: Used | None = None) -> Grant:
            reserved.add(frozenset(rate.budget for rate in rates))
            return super().reserve(rates, wanted, used)

    connector = account.connector().equipped(Services(turns=Noted(state.engine)))
    settings = connector.Pull(stream="contacts")
    account.put(1, text="first")
    cursor = [batch.cursor for batch in connector.pull(settings, None, None) if batch.cursor][-1]
    account.put(1, text="second")
    assert sum(len(batch.rows) for batch in connector.pull(settings, cursor, None)) == 1
    state.close()
    general, searching = sorted(reserved, key=len)
    assert (len(general), len(searching - general)) == (1, 1)
    assert all(name.startswith("hubspot:") and TOKEN not in name for name in searching)


def test_a_days_allowance_that_is_used_up_is_told_and_what_was_read_is_kept(account: HubspotAccount, pulled: Pulled) -> None:
    account.page = 2
    account.put(*range(1, 13), text="first")
    account.daily_left = 4
    with pytest.raises(RetryLater, match="allowance of requests for today is used up") as told:
        pulled.run()
    assert "midnight" in told.value.do
    stored = len(pulled.rows())
    assert stored == 6
    account.daily_left = None
    pulled.run()
    assert len(pulled.ops()) == 12


def test_a_missing_scope_is_named(account: HubspotAccount, pulled: Pulled) -> None:
    account.missing_scopes = {"contacts": "crm.objects.contacts.read"}
    with pytest.raises(SignInError, match="hubspot contacts: the app lacks a permission .scope.: crm.objects.contacts.read") as told:
        pulled.run()
    assert "add crm.objects.contacts.read" in told.value.do
    connector = account.connector()
    assert "crm.objects.contacts.read" in connector.check_pull(connector.Pull(stream="contacts"))[0]


def test_an_expired_token_says_so(account: HubspotAccount, pulled: Pulled) -> None:
    account.put(1, text="first")
    account.fail_once(401)
    with pytest.raises(SignInError, match="EXPIRED_AUTHENTICATION") as told:
        pulled.run()
    assert "copy the service key or the private app's token anew" in told.value.do


def test_an_object_type_that_the_account_does_not_have_is_told(account: HubspotAccount, pulled: Pulled) -> None:
    account.pull = {"stream": "2-999"}
    with pytest.raises(SourceError, match="hubspot 2-999: HubSpot does not have this") as told:
        pulled.run()
    assert "muxly connectors streams" in told.value.do


@pytest.mark.parametrize("name", ["company", "../../owners", "engagements"])
def test_associations_with_what_is_no_object_type_are_told(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no object type"):
        hubspot().stream(HubspotPull(stream="contacts", associations=[name]))


def test_associations_that_cannot_be_read_are_an_error_and_no_empty_column(account: HubspotAccount, pulled: Pulled) -> None:
    account.put(1, text="first")
    account.associations_trouble = "The association type could not be read."
    account.pull = {"stream": "contacts", "associations": ["companies"]}
    with pytest.raises(SourceError, match="could not read the associations of some records .The association type"):
        pulled.run()
    assert pulled.rows() == {}


# ---- owners and pipelines -----------------------------------------------------------------------------------------------


def owner(number: int, *, archived: bool = False) -> dict[str, Any]:
    at = "2026-01-01T00:00:00.000Z"
    teams = [{"id": "1", "name": "Sales", "primary": True}]
    who = {"email": f"{number}@example.com", "firstName": "Ada", "userId": 100 + number, "teams": teams}
    return {"id": str(number), "type": "PERSON", "archived": archived, "createdAt": at, "updatedAt": at, **who}


def test_owners_who_left_are_deleted_or_kept_as_archived(account: HubspotAccount, pulled: Pulled) -> None:
    account.page = 2
    account.owners = [owner(number) for number in range(1, 6)]
    account.pull = {"stream": "owners"}
    assert pulled.run().changed == 5
    assert json.loads(pulled.rows()[1]["teams"])[0]["name"] == "Sales"
    account.owners[1] = owner(2, archived=True)
    assert (pulled.run().changed, pulled.ops()[-1]) == (1, "delete")
    account.pull = {"stream": "owners", "archived": True}
    pulled.run()
    assert pulled.rows()[2]["archived"] is True
    assert len(pulled.rows()) == 5


def test_pipelines_come_with_their_stages_for_every_object_type(account: HubspotAccount, pulled: Pulled) -> None:
    stages = [{"id": "s1", "label": "New", "displayOrder": 0, "metadata": {"probability": "0.1"}, "archived": False}]
    account.pipelines = {
        "deals": [{"id": "1", "label": "Sales", "displayOrder": 0, "stages": stages, "archived": False}],
        "tickets": [{"id": "1", "label": "Support", "displayOrder": 0, "stages": [], "archived": False}],
    }
    account.pull = {"stream": "pipelines"}
    account.number = lambda row: {"deals": 1, "tickets": 2}[row["object_type"]]  # type: ignore[method-assign]
    assert pulled.run().changed == 2
    assert json.loads(pulled.rows()[1]["stages"])[0]["label"] == "New"
    assert (pulled.rows()[2]["label"], pulled.rows()[2]["id"]) == ("Support", "1")
    del account.pipelines["tickets"]
    assert (pulled.run().changed, pulled.ops()[-1]) == (1, "delete")


# ---- webhooks -----------------------------------------------------------------------------------------------------------


def test_webhooks_are_registered_once_however_often_it_is_asked(account: HubspotAccount) -> None:
    account.settings = {"app_id": 815, "developer_key": DEVELOPER_KEY}
    connector = account.connector()
    inputs = {"url": "https://hooks.example.com/crm", "events": ["contact.creation", "contact.propertyChange:email", "2-7.merge"]}
    registered = connector.act("webhooks_register", inputs)
    assert connector.act("webhooks_register", inputs) == registered == connector.act("webhooks_list", {})
    assert registered["settings"] == {"targetUrl": "https://hooks.example.com/crm", "throttling": {"maxConcurrentRequests": 10}}
    kinds = [(each["eventType"], each.get("propertyName"), each.get("objectTypeId")) for each in registered["subscriptions"]]
    assert kinds == [("contact.creation", None, None), ("contact.propertyChange", "email", None), ("object.merge", None, "2-7")]
    first = int(registered["subscriptions"][0]["id"])
    assert connector.act("webhooks_delete", {"ids": [first]}) == {"deleted": [first]}
    assert len(connector.act("webhooks_list", {})["subscriptions"]) == 2
    connector.act("webhooks_delete", {})
    assert connector.act("webhooks_list", {}) == {"settings": {}, "subscriptions": []}


@pytest.mark.parametrize(
    ("action", "inputs", "word"),
    [
        ("webhooks_register", {"url": "http://hooks.example.com", "events": ["contact.creation"]}, "https"),
        ("webhooks_register", {"url": "https://hooks.example.com", "events": ["contact.created"]}, "no event 'contact.created'"),
        ("webhooks_register", {"url": "https://hooks.example.com", "events": ["contact.propertyChange"]}, "which property"),
        ("webhooks_register", {"url": "https://hooks.example.com", "events": ["object.creation"]}, "of which object type"),
        ("webhooks_register", {"url": "https://hooks.example.com", "events": []}, "events"),
        ("webhooks_sing", {}, "no action"),
    ],
)
def test_wrong_inputs_of_an_action_are_told(account: HubspotAccount, action: str, inputs: dict[str, Any], word: str) -> None:
    account.settings = {"app_id": 815, "developer_key": DEVELOPER_KEY}
    with pytest.raises(ConfigurationError, match=word):
        account.connector().act(action, inputs)
    assert account.hooks["settings"] is None


@pytest.mark.parametrize(("version", "area"), [("2025-09", "app-webhooks"), ("2026-03", "webhooks"), ("2027-03-beta", "app-webhooks")])
def test_webhooks_have_other_paths_in_one_version(account: HubspotAccount, version: str, area: str) -> None:
    account.settings = {"app_id": 815, "developer_key": DEVELOPER_KEY, "api_version": version}
    with pytest.raises(SourceError, match="does not have this"):
        account.connector().act("webhooks_list", {})
    assert account.server.asked[-1].path == f"/{area}/{version}/815/settings"


def test_a_private_apps_webhooks_are_told_to_have_a_page_of_their_own(account: HubspotAccount) -> None:
    with pytest.raises(ConfigurationError, match="does not say to which") as told:
        account.connector().act("webhooks_list", {})
    assert "settings page" in told.value.problems[0].do


def test_a_wrong_developer_key_is_told_and_not_shown(account: HubspotAccount) -> None:
    account.settings = {"app_id": 815, "developer_key": "not-the-developers-key"}
    with pytest.raises(SignInError) as told:
        account.connector().act("webhooks_list", {})
    assert "developer_key" in told.value.do
    assert "not-the-developers-key" not in str(told.value)


def test_actions_say_what_they_take() -> None:
    actions = {action.name: action for action in hubspot().actions()}
    assert set(actions) == {"webhooks_register", "webhooks_list", "webhooks_delete"}
    assert actions["webhooks_register"].inputs["required"] == ["url", "events"]


def test_starting_up_loads_none_of_hubspots_client() -> None:
    import subprocess
    import sys

    code = "import sys, muxly_dagster.connectors.hubspot; print(any(name == 'hubspot' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
