"""Actions: things done in a Stripe account, each of which is done once however often it is sent."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from muxly_dagster.connector import Action
from muxly_dagster.connectors.stripe.api import Api, checked
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.http import Request
from muxly_dagster.project.checks import did_you_mean

_TEXT, _WHOLE, _FLAG, _OBJECT, _LIST = ({"type": kind} for kind in ("string", "integer", "boolean", "object", "array"))
_OWN = {
    "params": {"type": "object", "description": "Any other parameters that the API takes."},
    "idempotency_key": {"type": "string", "description": "Sent twice with the same key, it is done once. One is made unless it is given."},
}


@dataclass(frozen=True)
class _Deed:
    title: str
    path: str
    fields: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    required: Sequence[str] = ()
    method: str = "POST"

    @property
    def properties(self) -> dict[str, Any]:
        return {**({"id": _TEXT} if "{id}" in self.path else {}), **self.fields, **_OWN}

    @property
    def needed(self) -> list[str]:
        return [*(["id"] if "{id}" in self.path else []), *self.required]


_CUSTOMER = {"email": _TEXT, "name": _TEXT, "phone": _TEXT, "description": _TEXT, "address": _OBJECT, "metadata": _OBJECT}
_DEEDS: dict[str, _Deed] = {
    "create_customer": _Deed("Create a customer", "customers", _CUSTOMER),
    "update_customer": _Deed("Change a customer", "customers/{id}", _CUSTOMER),
    "delete_customer": _Deed("Delete a customer and end all its subscriptions", "customers/{id}", method="DELETE"),
    "create_refund": _Deed(
        "Give money back",
        "refunds",
        {"charge": _TEXT, "payment_intent": _TEXT, "amount": _WHOLE, "reason": _TEXT, "metadata": _OBJECT},
    ),
    "create_product": _Deed(
        "Create a product", "products", {"name": _TEXT, "description": _TEXT, "active": _FLAG, "metadata": _OBJECT}, ["name"]
    ),
    "create_price": _Deed(
        "Create a price",
        "prices",
        {"product": _TEXT, "currency": _TEXT, "unit_amount": _WHOLE, "recurring": _OBJECT, "metadata": _OBJECT},
        ["product", "currency"],
    ),
    "create_invoice_item": _Deed(
        "Add a line to a customer's next invoice",
        "invoiceitems",
        {"customer": _TEXT, "amount": _WHOLE, "currency": _TEXT, "invoice": _TEXT, "description": _TEXT, "metadata": _OBJECT},
        ["customer"],
    ),
    "create_invoice": _Deed(
        "Draft an invoice",
        "invoices",
        {"customer": _TEXT, "auto_advance": _FLAG, "collection_method": _TEXT, "days_until_due": _WHOLE, "metadata": _OBJECT},
        ["customer"],
    ),
    "finalize_invoice": _Deed("Make a drafted invoice final", "invoices/{id}/finalize"),
    "send_invoice": _Deed("Send an invoice to its customer", "invoices/{id}/send"),
    "void_invoice": _Deed("Void an invoice", "invoices/{id}/void"),
    "create_subscription": _Deed(
        "Subscribe a customer", "subscriptions", {"customer": _TEXT, "items": _LIST, "metadata": _OBJECT}, ["customer", "items"]
    ),
    "update_subscription": _Deed(
        "Change a subscription",
        "subscriptions/{id}",
        {"items": _LIST, "cancel_at_period_end": _FLAG, "proration_behavior": _TEXT, "metadata": _OBJECT},
    ),
    "cancel_subscription": _Deed("End a subscription at once", "subscriptions/{id}", method="DELETE"),
    "capture_payment": _Deed("Collect an authorised payment", "payment_intents/{id}/capture", {"amount_to_capture": _WHOLE}),
    "cancel_payment": _Deed("Cancel a payment intent", "payment_intents/{id}/cancel", {"cancellation_reason": _TEXT}),
}
_PYTHON: dict[str, type | tuple[type, ...]] = {"string": str, "integer": int, "boolean": bool, "object": Mapping, "array": (list, tuple)}


def actions() -> Sequence[Action]:
    """What can be done, with the JSON Schema of what it takes."""
    return tuple(
        Action(name, deed.title, {"type": "object", "properties": deed.properties, "required": deed.needed, "additionalProperties": False})
        for name, deed in _DEEDS.items()
    )


def prepare(action: str, inputs: Mapping[str, Any]) -> Request:
    """The request that does it. Raises ConfigurationError for an unknown action and for inputs that do not fit."""
    deed = _DEEDS.get(action)
    if deed is None:
        raise ConfigurationError(f"stripe has no action {action!r}", do=did_you_mean(action, _DEEDS))
    properties = deed.properties
    for name, value in inputs.items():
        if name not in properties:
            do = f"{did_you_mean(name, properties)}; what else the API takes goes into `params`"
            raise ConfigurationError(f"the action {action} has no input {name!r}", do=do)
        kind = properties[name]["type"]
        if value is not None and (not isinstance(value, _PYTHON[kind]) or (isinstance(value, bool) and kind != "boolean")):
            raise ConfigurationError(f"the action {action} takes {kind} as `{name}`, not {type(value).__name__}", do="correct the input")
    for name in deed.needed:
        if inputs.get(name) in (None, ""):
            raise ConfigurationError(f"the action {action} needs the input `{name}`", do="give it")
    given = {name: value for name, value in inputs.items() if name in deed.fields and value is not None}
    pairs = list(form_fields({**given, **(inputs.get("params") or {})}))
    return Request(
        deed.method,
        f"/v1/{deed.path.format(id=quote(str(inputs.get('id', '')), safe=''))}",
        headers={
            "Content-Type": "application/x-www-form-urlencoded",
            "Idempotency-Key": str(inputs.get("idempotency_key") or uuid.uuid4()),
        },
        content=urlencode(pairs).encode(),
        # A DELETE that was carried out answers "missing" when it is sent again, but it does no more.
        idempotent=True,
    )


def act(api: Api, request: Request) -> Any:
    """Do it, and give Stripe's answer. Raises SourceError with what Stripe says, and what the client raises."""
    return checked(api.http.request(request)).json()


def form_fields(values: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as the fields of a form: `metadata[order]`, `items[0][price]`. None is sent as nothing, which clears a field."""
    for name, value in values.items():
        yield from _fields(f"{within}[{name}]" if within else str(name), value)


def _fields(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        yield from form_fields(value, name)
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _fields(f"{name}[{number}]", each)
    else:
        yield name, "" if value is None else ("true" if value else "false") if isinstance(value, bool) else str(value)
