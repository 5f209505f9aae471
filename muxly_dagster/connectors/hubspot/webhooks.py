"""Webhook subscriptions of an app: which events HubSpot sends to which address.

They belong to an app, not to an account (https://developers.hubspot.com/docs/api-reference/latest/webhooks/guide): a private app keeps its
own on a settings page, and the API changes only those of a public app.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from muxly_dagster.connector import Action
from muxly_dagster.connectors.hubspot.api import Api
from muxly_dagster.errors import ConfigurationError

_OBJECT_EVENT = re.compile(r"(?P<type>\d+-\d+)\.(?P<what>\w+)")
_OTHER_AREA = {"2026-03": "webhooks"}  # in this version alone, the paths begin otherwise


class _Inputs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Register(_Inputs):
    """What `webhooks_register` takes."""

    url: str = Field(description="Where HubSpot sends events: an https address that everybody can reach.")
    events: list[str] = Field(
        min_length=1,
        description="Events such as `contact.creation`, `contact.propertyChange:email` or, of a custom object, `2-1234.creation`.",
    )
    max_concurrent: int = Field(10, ge=1, description="Most requests that HubSpot sends at once.")

    @field_validator("url")
    @classmethod
    def _https(cls, url: str) -> str:
        if not url.startswith("https://"):
            raise ValueError("HubSpot sends events to https addresses only")
        return url


class Nothing(_Inputs):
    """What `webhooks_list` takes."""


class Delete(_Inputs):
    """What `webhooks_delete` takes."""

    ids: list[int] = Field([], description="Subscriptions to delete; all of them, and the address, unless told otherwise.")


_INPUTS: dict[str, tuple[str, type[_Inputs]]] = {
    "webhooks_register": ("Have events sent to an address", Register),
    "webhooks_list": ("The address and the events that are sent there", Nothing),
    "webhooks_delete": ("Have no more events sent", Delete),
}


def actions() -> Sequence[Action]:
    """What can be done, with the JSON Schema of what it takes."""
    return tuple(Action(name, title, model.model_json_schema()) for name, (title, model) in _INPUTS.items())


def parse(action: str, inputs: Mapping[str, Any]) -> _Inputs:
    """The inputs of an action. Raises ConfigurationError for an unknown action and wrong inputs."""
    if action not in _INPUTS:
        raise ConfigurationError(f"hubspot has no action {action!r}", do=f"there are {', '.join(_INPUTS)}")
    try:
        return _INPUTS[action][1].model_validate(dict(inputs))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"{action}: {place}: {first['msg']}", do="see `muxly connectors show hubspot`") from None


def act(api: Api, app_id: int, inputs: _Inputs) -> Any:
    """Do what the inputs are for. Raises ConfigurationError for an event that does not exist."""
    if isinstance(inputs, Register):
        return _register(api, app_id, inputs)
    if isinstance(inputs, Delete):
        return _delete(api, app_id, inputs)
    return {"settings": _settings(api, app_id), "subscriptions": _subscriptions(api, app_id)}


def _register(api: Api, app_id: int, inputs: Register) -> Any:
    settings, wanted = _bodies(inputs)
    api.ask("PUT", _path(api, app_id, "settings"), json=settings)
    there = {_name(subscription) for subscription in _subscriptions(api, app_id)}
    for body in wanted:
        if _name(body) not in there:  # asking twice is an error, and running this twice should not be
            api.ask("POST", _path(api, app_id, "subscriptions"), json=body)
            there.add(_name(body))
    return {"settings": _settings(api, app_id), "subscriptions": _subscriptions(api, app_id)}


def _bodies(inputs: Register) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The app's settings and its subscriptions as HubSpot's client writes them. Raises ConfigurationError for an event that is none."""
    # HubSpot's client knows the events there are; it takes most of a second to load, so only who registers pays for it.
    from hubspot.webhooks import ApiClient, Configuration
    from hubspot.webhooks.models import SettingsChangeRequest, SubscriptionCreateRequest, ThrottlingSettings

    rules = Configuration()
    rules.client_side_validation = True  # off unless told otherwise: then every event would do
    subscriptions = []
    for event in inputs.events:
        kind, _, name = event.partition(":")
        of_type = _OBJECT_EVENT.fullmatch(kind)
        event_type = f"object.{of_type['what']}" if of_type else kind
        try:
            subscription = SubscriptionCreateRequest(of_type and of_type["type"], name or None, True, event_type, rules)
        except ValueError as error:
            there = str(error).partition("must be one of ")[2]
            raise ConfigurationError(f"HubSpot has no event {kind!r}", do=f"there are {there.strip('[]')}") from None
        if event_type.startswith("object.") and not of_type:
            raise ConfigurationError(f"the event {event!r} does not say of which object type", do="write it as `2-1234.creation`")
        if event_type.endswith(".propertyChange") != bool(name):
            do = "write `contact.propertyChange:email`; other events take no property"
            raise ConfigurationError(f"the event {event!r} does not say which property it is about", do=do)
        subscriptions.append(subscription)
    settings = SettingsChangeRequest(ThrottlingSettings(inputs.max_concurrent, rules), inputs.url, rules)
    with ApiClient(rules) as client:
        return client.sanitize_for_serialization(settings), [client.sanitize_for_serialization(each) for each in subscriptions]


def _delete(api: Api, app_id: int, inputs: Delete) -> Any:
    ids = inputs.ids or [int(subscription["id"]) for subscription in _subscriptions(api, app_id)]
    for number in ids:
        api.ask("DELETE", _path(api, app_id, "subscriptions", str(number)))
    if not inputs.ids:
        api.ask("DELETE", _path(api, app_id, "settings"))
    return {"deleted": ids}


def _settings(api: Api, app_id: int) -> Any:
    return api.ask("GET", _path(api, app_id, "settings")).json()


def _subscriptions(api: Api, app_id: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.ask("GET", _path(api, app_id, "subscriptions")).json().get("results") or []
    return found


def _name(subscription: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(subscription.get(field) or None for field in ("eventType", "propertyName", "objectTypeId"))


def _path(api: Api, app_id: int, *parts: str) -> str:
    return api.path(_OTHER_AREA.get(api.version[:7], "app-webhooks"), str(app_id), *parts)
