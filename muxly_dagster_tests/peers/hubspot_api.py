"""HubSpot's API as the account of `peers.hubspot` answers it: paths, limits and errors.

Bodies of requests must be what the models of HubSpot's own client can hold.
"""

import datetime as dt
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import format_datetime
from types import SimpleNamespace, TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from hubspot.crm.associations.v4 import ApiClient as AssociationsClient
from hubspot.crm.objects import ApiClient as ObjectsClient
from hubspot.webhooks import ApiClient as WebhooksClient

from muxly_dagster_tests.http.server import Asked, Server, json_answer

VERSION = "2026-09"
TOKEN = "pat-eu1-0b1c2d3e-private-app"
CLIENT_SECRET, REFRESH_TOKEN, DEVELOPER_KEY = "client-5ecret-8f7e", "na1-refresh-4d5e6f", "devkey-77aa-88bb"

_CLIENTS = {"objects": ObjectsClient, "associations": AssociationsClient, "webhooks": WebhooksClient}
_STANDARD = {"hs_object_id": "number", "hs_merged_object_ids": "string"}


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, category: str, message: str, **more: Any) -> None:
        self.status, self.body = status, {"status": "error", "category": category, "message": message, **more}


@dataclass
class Record:
    """One record. Times are datetimes; `merged_into` is the id of the record that took it in."""

    id: int
    properties: dict[str, str]
    created: dt.datetime
    modified: dt.datetime
    history: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    archived: bool = False
    merged_into: int = 0


class HubspotApi:
    """What is in the account, and how it is answered for. Its clock stands still until something happens."""

    def __init__(self) -> None:
        self.oauth = False
        self.now = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
        self.index_lag = dt.timedelta()
        self.objects: dict[str, dict[int, Record]] = {"contacts": {}}
        self.schema: dict[str, dict[str, str]] = {}
        self.hidden: set[str] = set()
        self.custom: list[dict[str, Any]] = []
        self.associations: dict[tuple[str, str], dict[int, list[tuple[int, list[str]]]]] = {}
        self.owners: list[dict[str, Any]] = []
        self.pipelines: dict[str, list[dict[str, Any]]] = {}
        self.hooks: dict[str, Any] = {"settings": None, "subscriptions": []}
        self.page = 100  # most records the account gives at once, below what is asked for
        self.associations_page = 500
        self.associations_trouble = ""
        self.associations_failures = 0  # so many of the next requests for associations fail in part
        self.unreadable_now: set[int] = set()  # records that the batch read gives an error for
        self.on_list: Callable[[], None] = lambda: None  # called before a list is answered
        self.garbled = ""  # answers to paths with this part are no JSON objects
        self.empty_searches = 0  # so many of the next searches give an empty page that is not the last
        self.list_tokens: set[int] = set()
        self.void_tokens: set[int] = set()
        self.missing_scopes: dict[str, str] = {}
        self.daily_left: int | None = None
        self.tokens = {TOKEN}
        self.secrets = [TOKEN, CLIENT_SECRET, REFRESH_TOKEN, DEVELOPER_KEY]
        self._failing: list[int] = []
        self._left: int | None = None
        self._lock = threading.RLock()
        self.server = Server(self._reply)
        self.mistakes: list[BaseException] = []

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.server.__exit__(kind, error, trace)
        assert not self.mistakes, self.mistakes

    # ---- answering ----

    def _reply(self, asked: Asked) -> bytes:
        date = {"Date": format_datetime(self.now, usegmt=True)}
        try:
            with self._lock:
                status, body, headers = self._answer(asked)
            return json_answer(body, status, **date, **headers)
        except Refusal as refusal:
            return json_answer(refusal.body, refusal.status, **date)
        except BaseException as error:
            self.mistakes.append(error)
            return json_answer({"message": repr(error)}, 500, **date)

    def _answer(self, asked: Asked) -> tuple[int, Any, dict[str, str]]:
        for pattern, answer in self._routes:
            found = re.fullmatch(pattern.replace("VERSION", VERSION), asked.path)
            if found:
                if "oauth" not in pattern:
                    self._sign_in(asked, found.groupdict().get("type", ""))
                if early := self._trouble(asked):
                    return early
                if self.garbled and self.garbled in asked.path:
                    return 200, "<html>the proxy is closed</html>", {}
                result = answer(self, asked, **found.groupdict())
                return result if isinstance(result, tuple) else (200, result, {})
        raise Refusal(404, "OBJECT_NOT_FOUND", f"no such path: {asked.path}")

    def _sign_in(self, asked: Asked, object_type: str) -> None:
        signed = asked.headers.get("authorization", "").removeprefix("Bearer ") in self.tokens
        if not signed and dict(asked.query).get("hapikey") != DEVELOPER_KEY:
            raise Refusal(401, "INVALID_AUTHENTICATION", "Authentication credentials not found.")
        if scope := self.missing_scopes.get(object_type):
            context = {"requiredGranularScopes": [scope]}
            raise Refusal(403, "MISSING_SCOPES", "This app hasn't been granted all required scopes.", errors=[{"context": context}])

    def _trouble(self, asked: Asked) -> tuple[int, Any, dict[str, str]] | None:
        if self.daily_left is not None:
            if not self.daily_left:
                raise Refusal(429, "RATE_LIMITS", "You have reached your daily limit.", policyName="DAILY")
            self.daily_left -= 1
        if not asked.path.startswith("/crm/objects/"):
            return None
        if self._left is not None:
            if self._left <= 0:
                raise Refusal(400, "VALIDATION_ERROR", "This account is out of order.")
            self._left -= 1
        status = self._failing.pop() if self._failing else 0
        if status == 401:
            self.tokens = set() if self.oauth else self.tokens
            raise Refusal(401, "EXPIRED_AUTHENTICATION", "The OAuth token used to make this call expired 21 second(s) ago.")
        if status == 429:
            body = {"status": "error", "errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING", "message": "slow down"}
            return 429, body, {"Retry-After": "0"}
        return None

    def _token(self, asked: Asked) -> Any:
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        right = {"grant_type": "refresh_token", "client_id": "the-app", "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN}
        if any(form.get(name) != value for name, value in right.items()):
            return 400, {"status": "BAD_REFRESH_TOKEN", "error": "invalid_grant", "message": "missing or invalid refresh token"}, {}
        token = f"access-token-of-the-app-{len(self.secrets)}"
        self.tokens, self.secrets = {token}, [*self.secrets, token]
        return {"access_token": token, "refresh_token": REFRESH_TOKEN, "expires_in": 1800, "token_type": "bearer"}

    def _details(self, asked: Asked) -> Any:
        return {
            "portalId": 4711,
            "accountType": "STANDARD",
            "timeZone": "Europe/Berlin",
            "companyCurrency": "EUR",
            "uiDomain": "app.hubspot.com",
        }

    def _usage(self, asked: Asked) -> Any:
        return {"results": [{"name": "daily", "usageLimit": 650_000, "currentUsage": 50_000, "resetsAt": "2026-06-02T00:00:00Z"}]}

    def _schemas(self, asked: Asked) -> Any:
        return {"results": self.custom}

    def _properties(self, asked: Asked, type: str) -> Any:
        types = {**_STANDARD, modified_name(type): "datetime", "createdate": "datetime", **self.schema.get(type, {})}
        types |= {"firstname": "string"} if type == "contacts" else {}
        return {"results": [{"name": n, "type": t, "fieldType": "text", "hidden": n in self.hidden} for n, t in types.items()]}

    def _list(self, asked: Asked, type: str) -> Any:
        self.on_list()
        query = dict(asked.query)
        if len(asked.target) > 8_000:
            return 414, {}, {}
        names = [name for name in query.get("properties", "").split(",") if name]
        limit = within(int(query.get("limit", 10)), 100)
        archived = query.get("archived") == "true"
        after = int(query.get("after") or 0)
        if after in self.void_tokens:
            raise Refusal(400, "VALIDATION_ERROR", f"Invalid paging token: {after}")
        there = sorted(n for n, r in self._type(type).items() if r.archived == archived and not r.merged_into and n > after)
        numbers = there[: min(limit, self.page)]
        paging = {"paging": {"next": {"after": str(numbers[-1]), "link": "deprecated"}}} if len(numbers) < len(there) else {}
        self.list_tokens.update(numbers[-1:])
        return {"results": [self._shown(type, n, names) for n in numbers], **paging}

    def _search(self, asked: Asked, type: str) -> Any:
        body = self._body(asked, "objects", "PublicObjectSearchRequest", apart=("sorts",))
        assert body["sorts"] == [{"propertyName": "hs_object_id", "direction": "ASCENDING"}]
        limit, after = within(body["limit"], 200), int(body.get("after") or 0)
        if after + limit > 10_000:
            raise Refusal(400, "VALIDATION_ERROR", "The search paging limit of 10000 was exceeded.")
        tests = [self._filter(type, each) for each in body["filterGroups"][0]["filters"]]
        known = self.now - self.index_lag
        live = (r for r in self._type(type).values() if not r.archived and not r.merged_into and r.modified <= known)
        found = sorted(r.id for r in live if all(test(r) for test in tests))
        if self.empty_searches and found:
            self.empty_searches -= 1
            return {"total": len(found), "results": [], "paging": {"next": {"after": "200"}}}
        page = found[after : after + min(limit, self.page)]
        paging = {"paging": {"next": {"after": str(after + len(page))}}} if after + len(page) < len(found) else {}
        return {"total": len(found), "results": [self._shown(type, n, body["properties"]) for n in page], **paging}

    def _filter(self, type: str, given: dict[str, str]) -> Callable[[Record], bool]:
        name, operator = given["propertyName"], given["operator"]
        if (name, operator) == ("hs_object_id", "GT"):
            return lambda record: record.id > int(given["value"])
        if (name, operator) == (modified_name(type), "BETWEEN"):
            low, high = int(given["value"]), int(given["highValue"])
            return lambda record: low <= int(record.modified.timestamp() * 1000) <= high
        raise Refusal(400, "VALIDATION_ERROR", f"There was a problem with the request: no filter {operator} on property {name}")

    def _batch_read(self, asked: Asked, type: str) -> Any:
        body = self._body(asked, "objects", "BatchReadInputSimplePublicObjectId")
        history = body.get("propertiesWithHistory") or []
        within(len(body["inputs"]), 50 if history else 100)
        records = self._type(type)
        numbers = [int(each["id"]) for each in body["inputs"]]
        numbers = [records[n].merged_into or n if n in records else n for n in numbers]
        there = [n for n in numbers if n in records and not records[n].archived and n not in self.unreadable_now]
        answer = {"status": "COMPLETE", "results": [self._shown(type, n, body["properties"], history) for n in there]}
        if len(there) == len(numbers):
            return answer
        errors = [{"category": "OBJECT_NOT_FOUND", "message": "Could not get some objects, they may be deleted"}]
        if self.unreadable_now & set(numbers):
            errors = [{"category": "INTERNAL_ERROR", "message": "Could not read some objects right now"}]
        return 207, {**answer, "numErrors": 1, "errors": errors}, {}

    def _associations(self, asked: Asked, type: str, to: str) -> Any:
        body = self._body(asked, "associations", "BatchInputPublicFetchAssociationsBatchRequest")
        within(len(body["inputs"]), 1000)
        results, errors = [], []
        trouble = self.associations_trouble or ("not now" if self.associations_failures else "")
        self.associations_failures = max(0, self.associations_failures - 1)
        for each in body["inputs"]:
            everything = self.associations.get((type, to), {}).get(int(each["id"]), [])
            start = int(each.get("after") or 0)
            page = everything[start : start + self.associations_page]
            if trouble:
                errors.append({"category": "INTERNAL_ERROR", "message": trouble})
                continue
            if not everything:
                errors.append({"category": "OBJECT_NOT_FOUND", "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND", "message": "none"})
                continue
            others = [{"toObjectId": str(n), "associationTypes": [label_type(text) for text in [None, *labels]]} for n, labels in page]
            end = start + len(page)
            paging = {"paging": {"next": {"after": str(end)}}} if end < len(everything) else {}
            results.append({"from": {"id": each["id"]}, "to": others, **paging})
        return (207 if errors else 200), {"status": "COMPLETE", "results": results, **({"errors": errors} if errors else {})}, {}

    def _owners(self, asked: Asked) -> Any:
        query = dict(asked.query)
        there = [
            o for o in self.owners if o["archived"] == (query.get("archived") == "true") and int(o["id"]) > int(query.get("after") or 0)
        ]
        page = there[: min(within(int(query["limit"]), 500), self.page)]
        return {"results": page, **({"paging": {"next": {"after": page[-1]["id"]}}} if len(page) < len(there) else {})}

    def _pipelines(self, asked: Asked, type: str) -> Any:
        return {"results": self.pipelines.get(type, [])}

    def _hook_settings(self, asked: Asked) -> Any:
        if asked.method == "PUT":
            self.hooks["settings"] = self._body(asked, "webhooks", "SettingsChangeRequest")
        elif asked.method == "DELETE":
            self.hooks["settings"] = None
        return self.hooks["settings"] or {}

    def _hook_subscriptions(self, asked: Asked) -> Any:
        if asked.method == "POST":
            body = self._body(asked, "webhooks", "SubscriptionCreateRequest")
            if any(
                body["eventType"] == s["eventType"] and body.get("propertyName") == s.get("propertyName")
                for s in self.hooks["subscriptions"]
            ):
                raise Refusal(400, "VALIDATION_ERROR", "Subscription already exists")
            self.hooks["subscriptions"].append({"id": str(len(self.secrets) + len(self.hooks["subscriptions"])), **body})
            return 201, body, {}
        return {"results": self.hooks["subscriptions"]}

    def _hook_subscription(self, asked: Asked, number: str) -> Any:
        assert asked.method == "DELETE"
        self.hooks["subscriptions"] = [s for s in self.hooks["subscriptions"] if s["id"] != number]
        return {}

    # ---- what they are made of ----

    def _type(self, object_type: str) -> dict[int, Record]:
        if object_type not in self.objects:
            raise Refusal(404, "OBJECT_NOT_FOUND", f"Unable to infer object type from: {object_type}")
        return self.objects[object_type]

    def _shown(self, object_type: str, number: int, names: list[str], history: list[str] | None = None) -> dict[str, Any]:
        record = self.objects[object_type][number]
        own = {"hs_object_id": str(number), "createdate": iso(record.created), modified_name(object_type): iso(record.modified)}
        values = {**record.properties, **own}
        shown = {
            "id": str(number),
            "properties": {name: values.get(name) for name in {**own, **dict.fromkeys(names)}},
            "createdAt": iso(record.created),
            "updatedAt": iso(record.modified),
            "archived": record.archived,
        }
        return shown if not history else {**shown, "propertiesWithHistory": {name: record.history.get(name, []) for name in history}}

    def _body(self, asked: Asked, client: str, model: str, apart: tuple[str, ...] = ()) -> Any:
        """The body, if it is what the model of HubSpot's own client can hold."""
        body = json.loads(asked.body)
        made = _CLIENTS[client]()
        made.configuration.client_side_validation = True
        try:
            held = made.sanitize_for_serialization(made.deserialize(SimpleNamespace(data=asked.body.decode()), model))
        finally:
            made.close()
        assert {k: v for k, v in held.items() if k not in apart} == {k: v for k, v in body.items() if k not in apart}, (held, body)
        return body

    _routes: tuple[tuple[str, Callable[..., Any]], ...] = (
        (r"/oauth/VERSION/token", _token),
        (r"/account-info/VERSION/details", _details),
        (r"/account-info/VERSION/api-usage/daily/private-apps", _usage),
        (r"/crm-object-schemas/VERSION/schemas", _schemas),
        (r"/crm/properties/VERSION/(?P<type>[^/]+)", _properties),
        (r"/crm/objects/VERSION/(?P<type>[^/]+)", _list),
        (r"/crm/objects/VERSION/(?P<type>[^/]+)/search", _search),
        (r"/crm/objects/VERSION/(?P<type>[^/]+)/batch/read", _batch_read),
        (r"/crm/associations/VERSION/(?P<type>[^/]+)/(?P<to>[^/]+)/batch/read", _associations),
        (r"/crm/owners/VERSION", _owners),
        (r"/crm/pipelines/VERSION/(?P<type>[^/]+)", _pipelines),
        (r"/app-webhooks/VERSION/815/settings", _hook_settings),
        (r"/app-webhooks/VERSION/815/subscriptions", _hook_subscriptions),
        (r"/app-webhooks/VERSION/815/subscriptions/(?P<number>\d+)", _hook_subscription),
    )


def within(number: int, most: int) -> int:
    """The number, unless it is more than HubSpot takes at once."""
    if number > most:
        raise Refusal(400, "VALIDATION_ERROR", f"at most {most} at once, not {number}")
    return number


def modified_name(object_type: str) -> str:
    """The property with the modified date."""
    return "lastmodifieddate" if object_type == "contacts" else "hs_lastmodifieddate"


def label_type(text: str | None) -> dict[str, Any]:
    """An association type with this label."""
    return {"category": "USER_DEFINED" if text else "HUBSPOT_DEFINED", "typeId": 1, "label": text}


def iso(moment: dt.datetime) -> str:
    """A time as HubSpot writes it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
