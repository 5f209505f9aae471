"""Collections: where Stripe keeps objects of one kind, and the events that tell of their changes (https://docs.stripe.com/api/events/types)."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from muxly_dagster.connector import Stream
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.records import TIMESTAMP


@dataclass(frozen=True, slots=True)
class Collection:
    """One kind of objects. `changed` and `gone` are the names of events, at most 20 together: so many the API takes at once.

    `created_apart` says that no event tells of a new object in every account, so that new ones are listed too.
    """

    title: str
    path: str
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    created_apart: bool = False
    params: dict[str, Any] = field(default_factory=dict)


def _of(name: str, *kinds: str) -> tuple[str, ...]:
    return tuple(f"{name}.{kind}" for kind in kinds)


_SUBSCRIPTION = _of(
    "customer.subscription",
    *("created", "deleted", "paused", "pending_update_applied", "pending_update_expired", "resumed", "trial_will_end", "updated"),
)
_INVOICE = _of(
    "invoice",
    *("created", "finalization_failed", "finalized", "marked_uncollectible", "overdue", "overpaid", "paid", "payment_action_required"),
    *("payment_failed", "payment_succeeded", "sent", "updated", "voided", "will_be_due"),
)
_PAYMENT_INTENT = _of(
    "payment_intent",
    *("amount_capturable_updated", "canceled", "created", "partially_funded", "payment_failed", "processing", "requires_action"),
    "succeeded",
)
_CHECKOUT = _of("checkout.session", "async_payment_failed", "async_payment_succeeded", "completed", "expired")
_DISPUTE = _of("charge.dispute", "closed", "created", "funds_reinstated", "funds_withdrawn", "updated")
_SCHEDULE = _of("subscription_schedule", "aborted", "canceled", "completed", "created", "expiring", "released", "updated")

ITEMS = "subscription_items"
"""Items have neither a list nor events of their own: they are read with their subscriptions."""

DELTA: dict[str, Collection] = {
    "customers": Collection("Customers", "customers", _of("customer", "created", "updated"), ("customer.deleted",)),
    "charges": Collection(
        "Charges", "charges", _of("charge", "captured", "expired", "failed", "pending", "refunded", "succeeded", "updated")
    ),
    "payment_intents": Collection("Payment intents", "payment_intents", _PAYMENT_INTENT),
    "setup_intents": Collection(
        "Setup intents", "setup_intents", _of("setup_intent", "canceled", "created", "requires_action", "setup_failed", "succeeded")
    ),
    "refunds": Collection(
        "Refunds", "refunds", (*_of("refund", "created", "failed", "updated"), "charge.refund.updated"), created_apart=True
    ),
    "disputes": Collection("Disputes", "disputes", _DISPUTE),
    "invoices": Collection("Invoices with their lines", "invoices", _INVOICE, ("invoice.deleted",)),
    "invoice_items": Collection(
        "Items of invoices to come", "invoiceitems", _of("invoiceitem", "created", "updated"), ("invoiceitem.deleted",), created_apart=True
    ),
    "subscriptions": Collection("Subscriptions, canceled ones too", "subscriptions", _SUBSCRIPTION, params={"status": "all"}),
    ITEMS: Collection("Items of subscriptions", "subscriptions", _SUBSCRIPTION, params={"status": "all"}),
    "subscription_schedules": Collection("Schedules of subscriptions", "subscription_schedules", _SCHEDULE),
    "products": Collection("Products", "products", _of("product", "created", "updated"), ("product.deleted",)),
    "prices": Collection("Prices", "prices", _of("price", "created", "updated"), ("price.deleted",)),
    "coupons": Collection("Coupons", "coupons", _of("coupon", "created", "updated"), ("coupon.deleted",)),
    "promotion_codes": Collection("Promotion codes", "promotion_codes", _of("promotion_code", "created", "updated")),
    "tax_rates": Collection("Tax rates", "tax_rates", _of("tax_rate", "created", "updated")),
    "credit_notes": Collection("Credit notes", "credit_notes", _of("credit_note", "created", "updated", "voided")),
    "checkout_sessions": Collection("Checkout sessions", "checkout/sessions", _CHECKOUT, created_apart=True),
    "payment_links": Collection("Payment links", "payment_links", _of("payment_link", "created", "updated")),
    "payouts": Collection(
        "Payouts", "payouts", _of("payout", "canceled", "created", "failed", "paid", "reconciliation_completed", "updated")
    ),
    "transfers": Collection("Transfers to connected accounts", "transfers", _of("transfer", "created", "reversed", "updated")),
    "application_fees": Collection("Fees of the platform", "application_fees", _of("application_fee", "created", "refunded")),
}
CURSOR: dict[str, Collection] = {
    "balance_transactions": Collection("What came into the balance and left it", "balance_transactions"),
    "events": Collection("Events of the last 30 days", "events"),
}

SECRET = "client_secret"
"""With it, anybody can finish the payment. Stripe asks not to store it (https://docs.stripe.com/api/payment_intents/object)."""

_BASE = pa.schema([("id", pa.string()), ("object", pa.string()), ("created", TIMESTAMP), ("livemode", pa.bool_())])

TYPES: dict[str, str] = {
    **dict.fromkeys(
        (
            *("arrival_date", "available_on", "billing_cycle_anchor", "cancel_at", "canceled_at", "completed_at", "created"),
            *("current_period_end", "current_period_start", "date", "due_date", "effective_at", "ended_at", "expires_at"),
            *("next_pending_invoice_item_invoice", "next_payment_attempt", "period_end", "period_start", "redeem_by", "released_at"),
            *("start_date", "trial_end", "trial_start", "updated", "voided_at", "webhooks_delivered_at"),
        ),
        "epoch_s",
    ),
    **dict.fromkeys(("percent_off", "percentage", "effective_percentage", "exchange_rate", "unit_amount_decimal"), "decimal"),
    "metadata": "json",
}
"""Types of columns that their values do not tell: times in seconds since 1970, and numbers with a fraction. Amounts stay whole numbers."""


def known_streams() -> tuple[Stream, ...]:
    """Every stream there is."""
    return tuple(stream_of(name) for name in (*DELTA, *CURSOR))


def stream_of(name: str) -> Stream:
    """The stream of this name. Raises ConfigurationError for one that there is not."""
    if name in DELTA:
        found = DELTA[name]
        schema = _BASE if name != ITEMS else pa.schema([*_BASE.remove(3), ("subscription", pa.string())])
        return Stream(name, ("id",), "delta", schema, description=found.title, deletes=bool(found.gone) or name == ITEMS)
    if name in CURSOR:
        return Stream(name, ("id",), "cursor", _BASE if name == "events" else _BASE.remove(3), description=CURSOR[name].title)
    raise ConfigurationError(f"stripe has no stream {name!r}", do=did_you_mean(name, [*DELTA, *CURSOR]))
