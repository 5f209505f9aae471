"""Actions: records created, changed, upserted and deleted."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from muxly_dagster.connector import Action
from muxly_dagster.connectors.salesforce.api import Api
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.project.checks import did_you_mean

_NAME = r"^[A-Za-z]\w*$"


class _Inputs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    object: str = Field(pattern=_NAME, description="The object's API name, such as `Account`.")


class Create(_Inputs):
    """What `create_record` takes."""

    fields: dict[str, Any] = Field(description="Values by the fields' API names.")


class Update(Create):
    """What `update_record` takes."""

    id: str = Field(pattern=r"^[A-Za-z0-9]{15,18}$", description="The record's id.")


class Upsert(Create):
    """What `upsert_record` takes."""

    external_id_field: str = Field(pattern=_NAME, description="The external id field's API name.")
    external_id: str = Field(min_length=1, description="Its value: the record that has it is changed, or one is created.")


class Delete(_Inputs):
    """What `delete_record` takes."""

    id: str = Field(pattern=r"^[A-Za-z0-9]{15,18}$", description="The record's id.")


_INPUTS: dict[str, tuple[str, type[_Inputs]]] = {
    "create_record": ("Create a record", Create),
    "update_record": ("Change a record", Update),
    "upsert_record": ("Change the record with an external id, or create it", Upsert),
    "delete_record": ("Move a record to the recycle bin", Delete),
}


def actions() -> Sequence[Action]:
    """What can be done, with the JSON Schema of what it takes."""
    return tuple(Action(name, title, model.model_json_schema()) for name, (title, model) in _INPUTS.items())


def parse(action: str, inputs: Mapping[str, Any]) -> _Inputs:
    """The inputs of an action. Raises ConfigurationError for an unknown action and wrong inputs."""
    if action not in _INPUTS:
        raise ConfigurationError(f"salesforce has no action {action!r}", do=did_you_mean(action, _INPUTS))
    try:
        return _INPUTS[action][1].model_validate(dict(inputs))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"{action}: {place}: {first['msg']}", do="see `muxly connectors show salesforce`") from None


def act(api: Api, inputs: _Inputs) -> dict[str, Any]:
    """Do it: the record's id, and whether it was created. What changes a record may be sent twice; creating one may not."""
    match inputs:
        case Upsert():
            path = api.path("sobjects", inputs.object, inputs.external_id_field, inputs.external_id)
            answer = api.send("PATCH", path, json=inputs.fields, idempotent=True)
            found: dict[str, Any] = answer.json() if answer.content.strip() else {}
            return {"id": found.get("id"), "created": bool(found.get("created", answer.status == 201))}
        case Update():
            api.send("PATCH", api.path("sobjects", inputs.object, inputs.id), json=inputs.fields, idempotent=True)
            return {"id": inputs.id, "created": False}
        case Create():
            return {"id": api.send("POST", api.path("sobjects", inputs.object), json=inputs.fields).json()["id"], "created": True}
        case Delete():
            api.send("DELETE", api.path("sobjects", inputs.object, inputs.id))
            return {"id": inputs.id, "deleted": True}
    raise AssertionError("unreachable")
