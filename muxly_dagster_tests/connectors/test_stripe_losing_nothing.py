"""Stripe where it is hard to lose nothing: events of one second, lists within objects, objects that go while they are read."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.errors import SourceError
from muxly_dagster_tests.connectors.test_stripe import items, paths, pulled
from muxly_dagster_tests.http.server import Asked
from muxly_dagster_tests.peers.stripe import StripeAccount


@pytest.fixture
def account() -> Iterator[StripeAccount]:
    with StripeAccount() as account:
        yield account


# ---- events of one second ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1, 2, 5])
def test_of_events_of_one_second_the_object_itself_tells_which_was_last(account: StripeAccount, tmp_path: Path, page: int) -> None:
    account.put(1, 2, text="first")
    place = pulled(account, tmp_path, "customers")
    place.run()
    account.page, account.still, account.now = page, True, account.now + 1
    for text in ("second", "third", "fourth"):
        account.put(1, 2, 3, text=text)
    place.run()
    assert {row["description"] for row in place.rows().values()} == {"fourth"}


def test_a_change_and_a_deletion_of_one_second(account: StripeAccount, tmp_path: Path) -> None:
    account.write("coupons", "SUMMER", currency="first")
    account.write("coupons", "WINTER", currency="first")
    place = pulled(account, tmp_path, "coupons")
    place.run()
    account.still, account.now = True, account.now + 1
    account.write("coupons", "SUMMER", currency="second")
    account.remove("coupons", "SUMMER")
    account.remove("coupons", "WINTER")
    account.write("coupons", "WINTER", currency="made anew")
    place.run()
    assert {name: row["currency"] for name, row in place.rows().items()} == {"WINTER": "made anew"}


def test_events_of_one_second_that_say_the_same_need_no_request_more(account: StripeAccount, tmp_path: Path) -> None:
    account.write("invoices", "in_1", status="open")
    place = pulled(account, tmp_path, "invoices")
    place.run()
    account.write("invoices", "in_1", "paid", status="paid")
    account.still = True
    account.write("invoices", "in_1", "payment_succeeded", status="paid")
    before = len(account.asked)
    place.run()
    assert place.rows()["in_1"]["status"] == "paid"
    assert set(paths(account, before)) == {"events"}


def test_items_of_a_subscription_that_changed_twice_in_one_second(account: StripeAccount, tmp_path: Path) -> None:
    account.write("subscriptions", "sub_1", items=items("si_1"))
    place = pulled(account, tmp_path, "subscription_items")
    place.run()
    account.still, account.now = True, account.now + 1
    account.write("subscriptions", "sub_1", items=items("si_1", "si_2"))
    account.write("subscriptions", "sub_1", items=items("si_2", "si_3"))
    place.run()
    assert set(place.rows()) == {"si_2", "si_3"}


# ---- lists within objects ----------------------------------------------------------------------------------------------


def lines(count: int, name: str = "in_1") -> dict[str, Any]:
    data = [{"id": f"il_{n:03}", "object": "line_item", "amount": n, "tax_rate": "1.10"} for n in range(count)]
    return {"object": "list", "data": data, "has_more": False, "total_count": count, "url": f"/v1/invoices/{name}/lines"}


def test_an_invoice_has_all_its_lines(account: StripeAccount, tmp_path: Path) -> None:
    account.page, account.shown = 4, 3
    account.write("invoices", "in_1", lines=lines(11), metadata={"has_more": "true"})
    account.write("invoices", "in_2", lines=lines(3, "in_2"))
    place = pulled(account, tmp_path, "invoices")
    place.run()
    found = {name: json.loads(row["lines"]) for name, row in place.rows().items()}
    assert found == {"in_1": lines(11), "in_2": lines(3, "in_2")}
    account.write("invoices", "in_1", lines=lines(13))
    place.run()
    assert json.loads(place.rows()["in_1"]["lines"]) == lines(13), "the event shows the first few alone"
    assert place.run().changed == 0


def test_a_subscription_has_all_its_items(account: StripeAccount, tmp_path: Path) -> None:
    names = [f"si_{n:02}" for n in range(25)]
    account.page = 10
    account.write("subscriptions", "sub_1", items={**items(*names), "url": "/v1/subscription_items?subscription=sub_1"})
    place = pulled(account, tmp_path, "subscriptions")
    place.run()
    found = json.loads(place.rows()["sub_1"]["items"])
    assert ([each["id"] for each in found["data"]], found["has_more"]) == (names, False)


def test_numbers_beside_a_long_list_stay_exact(account: StripeAccount, tmp_path: Path) -> None:
    account.shown = 1
    account.write("invoices", "in_1", lines=lines(3), amount_due=9_007_199_254_740_993, exchange_rate=0.1)
    place = pulled(account, tmp_path, "invoices")
    place.run()
    row = place.rows()["in_1"]
    assert (row["amount_due"], row["exchange_rate"]) == (9_007_199_254_740_993, Decimal("0.1"))


# ---- what goes while it is read ----------------------------------------------------------------------------------------


def test_an_object_that_is_deleted_between_two_pages_does_not_stop_the_list(account: StripeAccount, tmp_path: Path) -> None:
    account.put(*range(1, 8), text="first")
    answer = account.answer

    def meanwhile(asked: Asked) -> bytes:
        reply = answer(asked)
        if asked.path == "/v1/customers" and len(account.objects["customers"]) == 7:
            account.delete(6)  # the last one of the first page
        return reply

    account.answer = meanwhile  # type: ignore[method-assign]
    place = pulled(account, tmp_path, "customers")
    place.run()
    assert {f"cus_{n:04}" for n in (1, 2, 3, 4, 5, 7)} <= set(place.rows())
    place.run()
    assert "cus_0006" not in place.rows(), "what was deleted behind the list's back comes with the next pull"


@pytest.mark.parametrize("why", ["expired", "asked otherwise"])
def test_a_list_that_is_read_again_and_breaks_off_still_tells_what_was_deleted(account: StripeAccount, tmp_path: Path, why: str) -> None:
    account.put(*range(1, 10), text="first")
    place = pulled(account, tmp_path, "customers")
    place.run()
    account.delete(9)
    account.delete(2)
    if why == "expired":
        account.expire()
    connector = account.connector(**({"connected_account": "acct_42"} if why == "asked otherwise" else {}))
    account.break_after(2)
    with pytest.raises(SourceError):
        place.run(connector)
    account.mend()
    place.run(connector)
    assert set(place.rows()) == {f"cus_{n:04}" for n in range(1, 10)} - {"cus_0002", "cus_0009"}


# ---- secrets and refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["payment_intents", "setup_intents"])
def test_the_secret_of_a_payment_is_not_stored(account: StripeAccount, tmp_path: Path, stream: str) -> None:
    account.write(stream, "x_1", client_secret="x_1_secret_abc")
    place = pulled(account, tmp_path, stream)
    place.run()
    account.write(stream, "x_1", "succeeded", client_secret="x_1_secret_abc", description="done")
    place.run()
    assert "x_1_secret_abc" not in str(place.rows())
    assert place.rows()["x_1"]["description"] == "done"


def test_an_action_whose_key_is_in_use_is_sent_again(account: StripeAccount) -> None:
    account.fail_once(409)
    account.connector().act("create_refund", {"payment_intent": "pi_1", "idempotency_key": "k"})
    assert len(account.asked) == 2 and len(account.done) == 1


def test_a_key_that_was_used_for_something_else_is_told(account: StripeAccount) -> None:
    connector = account.connector()
    connector.act("create_refund", {"payment_intent": "pi_1", "idempotency_key": "k"})
    with pytest.raises(SourceError, match="used for another request") as told:
        connector.act("create_refund", {"payment_intent": "pi_2", "idempotency_key": "k"})
    assert told.value.do == "give another key"
