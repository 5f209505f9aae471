"""A HubSpot account that lives in this process, on a free port: what happens in it, and the connectors' contract played by its contacts."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from muxly_dagster.connectors.hubspot import Hubspot
from muxly_dagster_tests.http.server import Asked
from muxly_dagster_tests.peers.hubspot_api import CLIENT_SECRET, DEVELOPER_KEY, REFRESH_TOKEN, TOKEN, HubspotApi, Record, iso

__all__ = ["DEVELOPER_KEY", "TOKEN", "HubspotAccount"]


class HubspotAccount(HubspotApi):
    """The account. The contract's records are contacts, whose `firstname` is the text; `settings` are the connector's."""

    def __init__(self, *, oauth: bool = False, **settings: Any) -> None:
        super().__init__()
        self.oauth, self.settings = oauth, settings
        self.tokens = set() if oauth else {TOKEN}
        self.pull: dict[str, Any] = {"stream": "contacts"}
        self._drifted = False

    # ---- what happens in the account ----

    def define(self, object_type: str, **types: str) -> None:
        """Give an object type more properties."""
        self.schema.setdefault(object_type, {}).update(types)
        self.objects.setdefault(object_type, {})

    def write(self, object_type: str, number: int, **properties: str) -> Record:
        """Create or change a record, a second later."""
        self.now += dt.timedelta(seconds=1)
        return self.write_now(object_type, number, **properties)

    def write_now(self, object_type: str, number: int, **properties: str) -> Record:
        """Create or change a record without any time going by."""
        records = self.objects.setdefault(object_type, {})
        record = records.get(number)
        if record is None or record.archived:
            record = records[number] = Record(number, {}, self.now, self.now)
        for name, value in properties.items():
            record.history.setdefault(name, []).insert(0, {"value": value, "timestamp": iso(self.now), "sourceType": "CRM_UI"})
        record.properties.update(properties)
        record.modified = self.now
        return record

    def merge(self, object_type: str, survivor: int, gone: int) -> None:
        """One record takes another in."""
        taken = self.objects[object_type][survivor].properties.get("hs_merged_object_ids")
        self.write(object_type, survivor, hs_merged_object_ids=f"{taken};{gone}" if taken else str(gone))
        self.objects[object_type][gone].merged_into = survivor

    def restore(self, object_type: str, number: int) -> None:
        """Take a record out of the archive, which counts as a change of it."""
        self.now += dt.timedelta(seconds=1)
        record = self.objects[object_type][number]
        record.archived, record.modified = False, self.now

    def associate(self, from_type: str, number: int, to_type: str, other: int, *labels: str) -> None:
        """Let a record belong to another; its modified date stays."""
        self.associations.setdefault((from_type, to_type), {}).setdefault(number, []).append((other, list(labels)))

    def asked(self, part: str) -> list[Asked]:
        """The requests whose path has this part."""
        return [asked for asked in self.server.asked if part in asked.path]

    # ---- the contract's stand-in ----

    def connector(self, *, wrong: bool = False) -> Hubspot:
        auth: dict[str, Any] = {"kind": "bearer", "token": "pat-of-nobody" if wrong else TOKEN}
        if self.oauth:
            refresh = "refresh-of-nobody" if wrong else REFRESH_TOKEN
            auth = {"kind": "oauth2", "client_id": "the-app", "client_secret": CLIENT_SECRET, "refresh_token": refresh}
        fast = {"lag": "0s", "requests_per_10s": 1_000_000, "searches_per_second": 1_000_000}
        return Hubspot.model_validate({"auth": auth, "base_url": self.server.url, **fast, **self.settings})

    def put(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            self.write("contacts", number, firstname=text, **({"favourite_colour": "green"} if self._drifted else {}))

    def delete(self, number: int) -> None:
        self.now += dt.timedelta(seconds=1)
        self.objects["contacts"][number].archived = True

    def number(self, row: Mapping[str, Any]) -> int:
        return int(row["id"])

    def text(self, row: Mapping[str, Any]) -> str:
        return str(row["firstname"])

    def drift(self) -> None:
        self._drifted = True
        self.define("contacts", favourite_colour="string")

    def fail_once(self, status: int) -> None:
        self._failing.append(status)

    def break_after(self, requests: int) -> None:
        self._left = requests

    def mend(self) -> None:
        self._left = None

    def expire(self) -> None:
        raise NotImplementedError
