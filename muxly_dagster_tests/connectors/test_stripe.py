"""Stripe keeps a connector's promises, hears of changes by events, and does each thing once."""

import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.connectors.stripe.actions import form_fields
from muxly_dagster.connectors.stripe.collections import CURSOR, DELTA
from muxly_dagster.errors import ConfigurationError, MuxlyError, SignInError, SourceError
from muxly_dagster.testing.connectors import ConnectorContract, Pulled
from muxly_dagster_tests.http.server import Asked
from muxly_dagster_tests.peers.stripe import FIXTURES, StripeAccount


@pytest.fixture
def account() -> Iterator[StripeAccount]:
    with StripeAccount() as account:
        yield account


class TestStripe(ConnectorContract):
    expires = True

    @pytest.fixture
    def provider(self, account: StripeAccount) -> StripeAccount:
        return account


class TestStripeOfAnotherVersion(ConnectorContract):
    """Where events are rendered in another version, the objects themselves are read."""

    expires = True

    @pytest.fixture
    def provider(self) -> Iterator[StripeAccount]:
        with StripeAccount(version="2020-08-27") as account:
            yield account


class Objects(Pulled):
    """A place to pull into, for objects of any kind."""

    def rows(self) -> dict[Any, dict[str, Any]]:
        table = self.lake_table()
        return {row["id"]: row for row in table.current().to_pylist()} if table else {}

    def lake_table(self) -> Any:
        from muxly_dagster.lake import Lake

        return Lake(str(self.folder / "lake")).table(self.name)


def pulled(account: StripeAccount, folder: Path, stream: str, **settings: Any) -> Objects:
    account.pull = {"stream": stream, **settings}
    return Objects(account, folder, f"shop.{stream}")


def paths(account: StripeAccount, since: int = 0) -> list[str]:
    return [asked.path.removeprefix("/v1/") for asked in account.asked[since:] if dict(asked.query).get("limit") != "1"]


# ---- changes -----------------------------------------------------------------------------------------------------------


def test_of_many_events_the_newest_state_of_an_object_counts(account: StripeAccount, tmp_path: Path) -> None:
    account.page = 3
    account.put(1, 2, text="first")
    place = pulled(account, tmp_path, "customers")
    place.run()
    for text in ("second", "third", "fourth", "fifth"):
        account.put(1, text=text)
    account.delete(2)
    account.put(3, text="short-lived")
    account.delete(3)
    before = len(account.asked)
    place.run()
    assert {name: row["description"] for name, row in place.rows().items()} == {"cus_0001": "fifth"}
    assert set(paths(account, before)) == {"events"}


def test_only_events_of_the_collection_are_asked_for(account: StripeAccount, tmp_path: Path) -> None:
    account.write("subscriptions", "sub_1")
    place = pulled(account, tmp_path, "subscriptions")
    place.run()
    account.write("customers", "cus_1")
    place.run()
    asked = account.asked[-1]
    types = {value for name, value in asked.query if name == "types[]"}
    assert types == set(DELTA["subscriptions"].changed)
    assert dict(asked.query)["created[gte]"]


def test_no_collection_needs_more_events_than_the_api_takes() -> None:
    assert max(len(each.changed) + len(each.gone) for each in DELTA.values()) <= 20
    assert all(each.changed for each in DELTA.values())


def test_events_of_another_version_have_their_objects_read(tmp_path: Path) -> None:
    with StripeAccount(version="2020-08-27") as account:
        account.put(1, 2, text="first")
        place = pulled(account, tmp_path, "customers")
        place.run()
        account.put(1, text="second")
        account.put(2, text="gone")
        account.objects["customers"].pop("cus_0002")  # its deletion is not told yet
        before = len(account.asked)
        assert place.run().changed == 2
        assert set(paths(account, before)) == {"events", "customers/cus_0001", "customers/cus_0002"}
        assert place.rows()["cus_0001"]["test_clock"] == "clock_1"
        assert set(place.rows()) == {"cus_0001"}


def test_a_long_pause_is_read_day_by_day(account: StripeAccount, tmp_path: Path) -> None:
    account.put(1, text="first")
    place = pulled(account, tmp_path, "customers")
    place.run()
    for day in range(5):
        account.now += 86_400
        account.put(day + 2, text="new")
    account.break_after(3)
    with pytest.raises(MuxlyError):
        place.run()
    assert 1 < len(place.rows()) < 6
    account.mend()
    before = len(account.asked)
    place.run()
    assert len(place.rows()) == 6
    sent = [dict(asked.query) for asked in account.asked[before:]]
    starts = [int(query["created[gte]"]) for query in sent if "created[gte]" in query]
    assert starts == sorted(starts) and len(starts) < 6


def test_a_first_pull_goes_on_behind_an_object_that_was_deleted_meanwhile(account: StripeAccount, tmp_path: Path) -> None:
    account.put(*range(1, 8), text="first")
    place = pulled(account, tmp_path, "customers")
    account.break_after(2)
    with pytest.raises(SourceError):
        place.run()
    account.mend()
    last = min(place.rows())
    account.remove("customers", last)
    place.run()
    assert set(place.rows()) == {f"cus_{n:04}" for n in range(1, 8)} - {last}


def test_what_changes_during_the_first_pull_comes_with_the_next(account: StripeAccount, tmp_path: Path) -> None:
    account.put(1, 2, 3, text="first")
    answer = account.answer

    def meanwhile(asked: Asked) -> bytes:
        reply = answer(asked)
        if asked.path == "/v1/customers" and len(account.objects["customers"]) == 3:
            account.put(3, text="late")
            account.put(4, text="late")
        return reply

    account.answer = meanwhile  # type: ignore[method-assign]
    place = pulled(account, tmp_path, "customers")
    place.run()
    place.run()
    assert {row["description"] for name, row in place.rows().items() if name > "cus_0002"} == {"late"}
    assert len(place.rows()) == 4


@pytest.mark.parametrize(("stream", "path"), [("refunds", "refunds"), ("checkout_sessions", "checkout/sessions")])
def test_new_objects_that_no_event_tells_of_are_listed(account: StripeAccount, tmp_path: Path, stream: str, path: str) -> None:
    account.write(path, "a_1", event=False)
    place = pulled(account, tmp_path, stream)
    place.run()
    account.now += 5_000
    account.write(path, "a_2", event=False)
    account.write(path, "a_1", "updated" if stream == "refunds" else "completed", payment_intent="pi_9")
    assert place.run().changed == 2
    assert (place.rows()["a_1"]["payment_intent"], set(place.rows())) == ("pi_9", {"a_1", "a_2"})


# ---- collections -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", sorted({*DELTA, *CURSOR} - {"events", "subscription_items"}))
def test_every_collection_is_read_into_its_types(account: StripeAccount, tmp_path: Path, stream: str) -> None:
    path = {**DELTA, **CURSOR}[stream].path
    account.write(path, "one", event=False)
    place = pulled(account, tmp_path, stream)
    assert place.run().refused == 0
    row = place.rows()["one"]
    assert row["created"] == dt.datetime.fromtimestamp(account.now, dt.UTC)
    assert place.run().changed == 0


def test_times_amounts_and_fractions_are_exact(account: StripeAccount, tmp_path: Path) -> None:
    account.write("prices", "price_1", unit_amount=12, unit_amount_decimal="12.000000000001", metadata={})
    place = pulled(account, tmp_path, "prices")
    place.run()
    row = place.rows()["price_1"]
    assert (row["unit_amount"], row["unit_amount_decimal"], row["metadata"]) == (12, Decimal("12.000000000001"), "{}")


def test_canceled_subscriptions_stay(account: StripeAccount, tmp_path: Path) -> None:
    account.write("subscriptions", "sub_1", status="active")
    place = pulled(account, tmp_path, "subscriptions")
    place.run()
    account.write("subscriptions", "sub_1", "deleted", status="canceled")
    place.run()
    assert place.rows()["sub_1"]["status"] == "canceled"
    place.run(from_start=True)
    assert place.rows()["sub_1"]["status"] == "canceled"


def items(*names: str, more: bool = False) -> dict[str, Any]:
    data = [{**FIXTURES["subscription_item"], "id": name, "subscription": "sub_1"} for name in names]
    return {"object": "list", "data": data, "has_more": more}


def test_items_come_and_go_with_their_subscriptions(account: StripeAccount, tmp_path: Path) -> None:
    account.write("subscriptions", "sub_1", items=items("si_1", "si_2"))
    account.write("subscriptions", "sub_2", items=items("si_9"))
    place = pulled(account, tmp_path, "subscription_items")
    place.run()
    assert set(place.rows()) == {"si_1", "si_2", "si_9"}
    account.write("subscriptions", "sub_1", items=items("si_1", "si_3"))
    account.write("subscriptions", "sub_1", items=items("si_3", "si_4"))
    assert place.run().changed == 4
    assert set(place.rows()) == {"si_3", "si_4", "si_9"}


def test_a_subscription_with_more_items_than_it_shows_has_them_listed(account: StripeAccount, tmp_path: Path) -> None:
    account.write("subscriptions", "sub_1", items=items("si_1", "si_2", "si_3", more=True))
    place = pulled(account, tmp_path, "subscription_items")
    place.run()
    assert set(place.rows()) == {"si_1", "si_2", "si_3"}
    assert "subscription_items" in paths(account)


def test_the_balance_is_read_from_the_oldest_transaction_that_was_pending(account: StripeAccount, tmp_path: Path) -> None:
    account.write("balance_transactions", "txn_1", event=False, status="available")
    account.now += 50_000
    pending = account.write("balance_transactions", "txn_2", event=False, status="pending")["created"]
    account.now += 50_000
    account.write("balance_transactions", "txn_3", event=False, status="available")
    place = pulled(account, tmp_path, "balance_transactions")
    place.run()
    account.objects["balance_transactions"]["txn_2"]["status"] = "available"
    account.now += 50_000
    assert place.run().changed == 1
    assert int(dict(account.asked[-1].query)["created[gte]"]) <= pending
    place.run()
    assert int(dict(account.asked[-1].query)["created[gte]"]) > pending + 50_000


def test_events_are_a_stream_of_their_own(account: StripeAccount, tmp_path: Path) -> None:
    account.put(1, 2, 3)
    place = pulled(account, tmp_path, "events")
    place.run()
    account.put(4)
    assert place.run().changed == 1
    row = place.rows()["evt_00004"]
    assert (row["type"], json.loads(row["data"])["object"]["id"]) == ("customer.created", "cus_0004")


# ---- settings ----------------------------------------------------------------------------------------------------------


def test_ids_can_be_expanded_also_in_changes(account: StripeAccount, tmp_path: Path) -> None:
    account.put(1, text="Ann")
    account.write("charges", "ch_1", customer="cus_0001")
    place = pulled(account, tmp_path, "charges")
    place.run()
    assert place.rows()["ch_1"]["customer"] == "cus_0001"
    place = pulled(account, tmp_path, "charges", expand=["customer"])
    assert place.run().changed == 1
    account.write("charges", "ch_1", description="changed")
    place.run()
    row = place.rows()["ch_1"]
    assert (row["description"], json.loads(row["customer"])["description"]) == ("changed", "Ann")


def test_the_version_and_the_connected_account_are_sent(account: StripeAccount) -> None:
    connector = account.connector(api_version="2025-03-31.basil", connected_account="acct_42")
    assert connector.test_connection().status == "ok"
    sent = account.asked[-1].headers
    assert (sent["stripe-version"], sent["stripe-account"]) == ("2025-03-31.basil", "acct_42")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"stream": "customer"}, "did you mean customers"),
        ({"stream": "charges", "key": ["number"]}, "the key is `id`"),
        ({"stream": "events", "expand": ["data"]}, "nothing can be expanded"),
    ],
)
def test_settings_that_cannot_work_are_told(account: StripeAccount, settings: dict[str, Any], told: str) -> None:
    connector = account.connector()
    with pytest.raises(ConfigurationError, match=told):
        connector.stream(connector.Pull.model_validate(settings))


def test_the_account_is_known_where_the_key_may_see_it(account: StripeAccount) -> None:
    assert account.connector().metadata().account == FIXTURES["account"]["id"]
    account.may_not = {"account"}
    found = account.connector().metadata()
    assert (found.account, found.details["mode"]) == ("", "test")


def test_a_restricted_key_that_may_not_read_events_is_told_before_anything_is_read(account: StripeAccount, tmp_path: Path) -> None:
    account.put(1)
    account.may_not = {"events"}
    with pytest.raises(SignInError, match="not allowed") as told:
        pulled(account, tmp_path, "customers").run()
    assert "Events: read" in told.value.do
    assert paths(account) == []


# ---- actions -----------------------------------------------------------------------------------------------------------


def test_an_action_is_done_once_with_the_same_key(account: StripeAccount) -> None:
    connector = account.connector()
    inputs = {
        "email": "ann@shop.example",
        "metadata": {"order": 7},
        "params": {"invoice_settings": {"footer": None}},
        "idempotency_key": "k1",
    }
    assert connector.act("create_customer", inputs) == connector.act("create_customer", inputs)
    assert account.done["k1"]["form"] == {"email": "ann@shop.example", "metadata[order]": "7", "invoice_settings[footer]": ""}
    connector.act("create_refund", {"charge": "ch_1", "amount": 5})
    connector.act("create_refund", {"charge": "ch_1", "amount": 5})
    assert len(account.done) == 3


def test_a_rate_limit_does_not_do_it_twice(account: StripeAccount) -> None:
    account.fail_once(429)
    account.connector().act("create_refund", {"payment_intent": "pi_1"})
    keys = {asked.headers["idempotency-key"] for asked in account.asked}
    assert (len(account.asked), len(keys), len(account.done)) == (2, 1, 1)


def test_ids_in_addresses_cannot_lead_elsewhere(account: StripeAccount) -> None:
    account.connector().act("update_customer", {"id": "../refunds", "name": "x"})
    assert account.asked[-1].target == "/v1/customers/..%2Frefunds"


@pytest.mark.parametrize(
    ("action", "inputs", "told"),
    [
        ("create_custommer", {}, "did you mean create_customer"),
        ("update_customer", {}, "needs the input `id`"),
        ("create_refund", {"ammount": 5}, "did you mean amount"),
        ("create_refund", {"amount": "5"}, "takes integer as `amount`"),
        ("create_subscription", {"customer": "cus_1"}, "needs the input `items`"),
    ],
)
def test_wrong_inputs_are_told_before_anything_is_sent(account: StripeAccount, action: str, inputs: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        account.connector().act(action, inputs)
    assert account.asked == []


def test_a_refusal_says_what_stripe_says(account: StripeAccount) -> None:
    with pytest.raises(SourceError, match="You can only pass in open invoices"):
        account.connector().act("void_invoice", {"id": "in_paid"})


def test_nested_values_become_fields_with_brackets() -> None:
    values = {"items": [{"price": "p", "quantity": 2}, {"price": "q"}], "active": True}
    assert dict(form_fields(values)) == {"items[0][price]": "p", "items[0][quantity]": "2", "items[1][price]": "q", "active": "true"}
