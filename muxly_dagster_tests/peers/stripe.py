"""A Stripe account over HTTP, as far as the API's reference describes it: objects, the events that tell of them, forms with brackets.

Its objects are Stripe's own fixtures (data/stripe, MIT), its clock is its own. https://docs.stripe.com/api
"""

import copy
import datetime as dt
import json
from collections.abc import Mapping
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from muxly_dagster.connectors.stripe import Stripe
from muxly_dagster.connectors.stripe.collections import CURSOR, DELTA
from muxly_dagster_tests.http.server import Asked, json_answer
from muxly_dagster_tests.peers.service import Service

FIXTURES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "data/stripe/fixtures.json").read_text())
VERSION = "2026-09-30.endive"
BEGIN = 1_790_000_000

_EVENTS_OF = {"invoiceitems": "invoiceitem", "checkout/sessions": "checkout.session", "subscriptions": "customer.subscription"}
_FIXTURE_OF = {"invoiceitems": "invoiceitem", "checkout/sessions": "checkout.session", "subscription_items": "subscription_item"}


class StripeAccount(Service):
    """The account. The contract's records are customers, whose `description` is the text.

    `version` is the account's own, in which events are rendered; `page` the most objects of a page, `shown` of a list within an object.
    Events of one second are listed the wrong way round. While `still` is set, no time goes by.
    """

    pull: Mapping[str, Any] = {"stream": "customers"}

    def __init__(self, version: str = VERSION, page: int = 2) -> None:
        super().__init__()
        self._access = "sk_test_51acc0untsecret"
        self.secrets = [self._access]
        self.version, self.page, self.shown, self.now, self.still = version, page, 10, BEGIN, False
        self.objects: dict[str, dict[str, dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self.done: dict[str, Any] = {}
        self.may_not: set[str] = set()

    # ---- what happens in the account

    def write(self, path: str, name: str, kind: str = "", *, event: bool = True, **fields: Any) -> dict[str, Any]:
        """Create or change an object, a second later."""
        self.now += not self.still
        there = self.objects.setdefault(path, {})
        before = there.get(name)
        fixture = FIXTURES[_FIXTURE_OF.get(path, path.removesuffix("s"))]
        there[name] = {**(before or {**fixture, "id": name, "created": self.now}), **fields}
        if event:
            changed = {key: before.get(key) for key in fields if before is not None and before.get(key) != fields[key]}
            self.tell(
                f"{_EVENTS_OF.get(path, path.removesuffix('s'))}.{kind or ('updated' if before else 'created')}", there[name], changed
            )
        return there[name]

    def remove(self, path: str, name: str) -> None:
        """Delete an object."""
        self.now += not self.still
        gone = self.objects[path].pop(name)
        self.tell(f"{_EVENTS_OF.get(path, path.removesuffix('s'))}.deleted", gone, {})

    def tell(self, kind: str, about: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
        """Have an event."""
        data = {"object": self._cut(self._rendered(copy.deepcopy(dict(about)), self.version)), "previous_attributes": dict(changed) or None}
        event = {"id": f"evt_{len(self.events) + 1:05}", "created": self.now, "type": kind, "data": data, "api_version": self.version}
        self.events.append({**FIXTURES["event"], **event})

    def put(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            more: dict[str, Any] = {"tax_info": "DE123"} if self.extra else {}
            self.write("customers", f"cus_{number:04}", description=text, **more)

    def delete(self, number: int) -> None:
        self.remove("customers", f"cus_{number:04}")

    def expire(self) -> None:
        self.now += int(dt.timedelta(days=31).total_seconds())

    def number(self, row: Mapping[str, Any]) -> int:
        return int(row["id"].removeprefix("cus_"))

    def text(self, row: Mapping[str, Any]) -> str:
        return str(row["description"])

    def connector(self, *, wrong: bool = False, **fields: Any) -> Stripe:
        auth = {"kind": "bearer", "token": "sk_test_wrong" if wrong else self._access}
        return Stripe.model_validate({"auth": auth, "base_url": self.url, "requests_per_second": 100_000, **fields})

    # ---- answers

    def refusal(self, status: int) -> bytes:
        return self._refusal(status, "no", {429: "rate_limit"}.get(status))

    def _refusal(self, status: int, message: str, code: str | None = None, **more: Any) -> bytes:
        error = {"type": "invalid_request_error", "code": code, "message": message, **more}
        return json_answer({"error": error}, status, Retry_After="0")

    def is_for_records(self, asked: Asked) -> bool:
        return dict(asked.query).get("limit") != "1"

    def answer(self, asked: Asked) -> bytes:
        path, query = asked.path.removeprefix("/v1/"), dict(asked.query)
        if path in self.may_not:
            return self._refusal(403, "The provided key does not have the required permissions for this endpoint.")
        if asked.method != "GET":
            return self._do(asked, path)
        if path == "account":
            return json_answer(FIXTURES["account"])
        version = asked.headers.get("stripe-version", self.version)
        expand = [value for name, value in asked.query if name == "expand[]"]
        for each in (*DELTA.values(), *CURSOR.values()):
            if path == each.path:
                return self._list(path, asked, query, version, [name.removeprefix("data.") for name in expand])
        if path == "subscription_items":
            found = self.objects["subscriptions"].get(query["subscription"])
            return self._page(found["items"]["data"], query) if found else self._missing(query["subscription"])
        folder, _, name = path.rpartition("/")
        above, _, within = folder.rpartition("/")
        if within in self.objects.get(above, {}):
            return self._page(self.objects[above][within][name]["data"], query)
        found = self.objects.get(folder, {}).get(name)
        return json_answer(self._shown(found, version, expand)) if found else self._missing(name)

    def _list(self, path: str, asked: Asked, query: Mapping[str, str], version: str, expand: list[str]) -> bytes:
        if path == "events":
            types = [value for name, value in asked.query if name == "types[]"]
            oldest = self.now - int(dt.timedelta(days=30).total_seconds())
            newest_first = sorted(self.events, key=lambda event: event["created"], reverse=True)
            found = [e for e in newest_first if e["created"] >= oldest and (not types or e["type"] in types)]
        else:
            newest = sorted(self.objects.get(path, {}).values(), key=lambda each: (each["created"], each["id"]), reverse=True)
            found = [self._shown(each, version, expand) for each in newest]
            if path == "subscriptions" and query.get("status") != "all":
                found = [each for each in found if each["status"] != "canceled"]
        since, until = int(query.get("created[gte]", 0)), int(query.get("created[lt]", 10**11))
        return self._page([each for each in found if since <= each["created"] < until], query)

    def _page(self, found: list[dict[str, Any]], query: Mapping[str, str]) -> bytes:
        after, size, start = query.get("starting_after"), min(int(query.get("limit", 10)), self.page), 0
        if after:
            places = [place for place, each in enumerate(found) if each["id"] == after]
            if not places:
                return self._missing(after, 400)
            start = places[0] + 1
        date = format_datetime(dt.datetime.fromtimestamp(self.now, dt.UTC), usegmt=True)
        page = {"object": "list", "data": found[start : start + size], "has_more": len(found) > start + size}
        return json_answer(page, Date=date)

    def _missing(self, name: str, status: int = 404) -> bytes:
        return self._refusal(status, f"No such object: '{name}'", "resource_missing", param="id")

    def _shown(self, found: Mapping[str, Any], version: str, expand: list[str]) -> dict[str, Any]:
        shown = self._rendered(dict(found), version)
        for name in expand:
            shown[name] = next(there[shown[name]] for there in self.objects.values() if shown[name] in there)
        return self._cut(shown)

    def _cut(self, found: dict[str, Any]) -> dict[str, Any]:
        """The object with no more than the beginnings of its lists."""
        lists = {name: value for name, value in found.items() if isinstance(value, dict) and len(value.get("data", ())) > self.shown}
        return {**found, **{name: {**value, "data": value["data"][: self.shown], "has_more": True} for name, value in lists.items()}}

    @staticmethod
    def _rendered(found: dict[str, Any], version: str) -> dict[str, Any]:
        """Versions before 2022 know no test clocks."""
        if version < "2022":
            found.pop("test_clock", None)
        else:
            found["test_clock"] = found.get("test_clock") or "clock_1"
        return found

    def _do(self, asked: Asked, path: str) -> bytes:
        key = asked.headers.get("idempotency-key", "")
        form = dict(parse_qsl(asked.body.decode(), keep_blank_values=True))
        if key in self.done and self.done[key]["form"] != form:
            message = "Keys for idempotent requests can only be used with the same parameters they were first used with."
            return self._refusal(400, message, type="idempotency_error")
        if key not in self.done:
            self.done[key] = {"id": f"done_{len(self.done) + 1}", "object": path.partition("/")[0], "method": asked.method, "form": form}
        if path == "invoices/in_paid/void":
            return self._refusal(400, "You can only pass in open invoices.", "invoice_not_open", param="invoice")
        return json_answer(self.done[key])
