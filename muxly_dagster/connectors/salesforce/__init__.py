"""The salesforce connector: the records of an organisation's objects, by REST or in bulk, with their changes and deletions."""

import datetime as dt
import hashlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import orjson
import pyarrow as pa
from pydantic import Field, field_validator

from muxly_dagster.auth import Bearer, OAuth2
from muxly_dagster.connector import Action, Batch, Connector, Cursor, Declaration, Metadata, PullSettings, Stream
from muxly_dagster.connectors.salesforce import actions
from muxly_dagster.connectors.salesforce.api import API_VERSION, Api, judge, usage
from muxly_dagster.connectors.salesforce.objects import DELETED, describe, list_objects, schema_of
from muxly_dagster.connectors.salesforce.reading import Plan, read
from muxly_dagster.errors import ConfigurationError, MuxlyError, SignInError
from muxly_dagster.http import Http, Limit, sign_in
from muxly_dagster.manifest.reading.ahead import read_ahead
from muxly_dagster.measures import parse_duration
from muxly_dagster.resource import CheckResult

_DOCS = "https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/intro_rest.htm"
_NAME = re.compile(r"[A-Za-z]\w*")

OBJECTS: dict[str, str] = {
    "Account": "Companies and people.",
    "Contact": "People at accounts.",
    "Lead": "People who may become customers.",
    "Opportunity": "Deals.",
    "OpportunityLineItem": "Products of deals.",
    "Case": "Cases of the help desk.",
    "Task": "Activities: to do, calls, e-mails.",
    "Event": "Activities: meetings.",
    "Campaign": "Campaigns.",
    "CampaignMember": "Contacts and leads in campaigns.",
    "Product2": "Products.",
    "PricebookEntry": "Prices of products.",
    "Order": "Orders.",
    "OrderItem": "Products of orders.",
    "Contract": "Contracts.",
    "User": "Users; they are never deleted.",
}
"""Objects of most organisations; the others are found by asking."""


class SalesforcePull(PullSettings):
    """What a pull reads of an object."""

    fields: list[str] = Field([], description="Fields to read; all that the user may see unless told otherwise.")
    formulas: bool = Field(False, description="Whether to read formula fields too: a change of theirs does not count as one of the record.")
    mode: Literal["auto", "rest", "bulk"] = Field(
        "auto", description="How to read: by REST, by jobs of Bulk API 2.0, or by whichever suits the number of records."
    )


class Salesforce(Connector):
    """A Salesforce organisation, by an app that signs in as itself or for a user."""

    id: ClassVar[str] = "salesforce"
    title: ClassVar[str] = "Salesforce"
    Pull: ClassVar[type[PullSettings]] = SalesforcePull
    example: ClassVar[Mapping[str, Any]] = {
        "auth": {"kind": "oauth2", "client_id": "${SALESFORCE_CLIENT_ID}", "client_secret": "${SALESFORCE_CLIENT_SECRET}"},
        "instance_url": "https://acme.my.salesforce.com",
        "pulls": {name.lower(): {"stream": name} for name in ("Account", "Contact", "Opportunity", "Lead")},
    }

    auth: Annotated[OAuth2 | Bearer, Field(discriminator="kind")] = Field(
        description="An app's id and secret (`kind: oauth2`), for itself or with a user's refresh token; or an access token as it is."
    )
    instance_url: str = Field(description="The organisation's My Domain, such as https://acme.my.salesforce.com.")
    api_version: str = Field(API_VERSION, pattern=r"^\d{2,3}\.0$", description="The version in every path.")
    overlap: str = Field("10m", description="How much of the time before the last pull is read again: long transactions show old times.")
    bulk_from: int = Field(50_000, ge=0, description="Above so many records, `mode: auto` has a bulk job read them.")
    bulk_timeout: str = Field("2h", description="How long a pull waits for a bulk job; the next one goes on with the same job.")

    @field_validator("overlap", "bulk_timeout")
    @classmethod
    def _is_duration(cls, text: str) -> str:
        parse_duration(text)
        return text

    @field_validator("instance_url")
    @classmethod
    def _is_address(cls, text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise ValueError("is no address such as https://acme.my.salesforce.com")
        return text.rstrip("/")

    # ---- the contract ----

    def stream(self, pull: PullSettings) -> Stream:
        """Describe an object's stream, as far as its name tells."""
        if not _NAME.fullmatch(pull.stream):
            raise ConfigurationError(f"salesforce has no object {pull.stream!r}", do="write its API name, such as Account or Invoice__c")
        if pull.key not in (None, ["Id"]):
            raise ConfigurationError(f"salesforce {pull.stream}: the key is `Id`", do="leave `key` out: deleted records are known by it")
        return _stream(pull.stream, OBJECTS.get(pull.stream, ""))

    def resolve(self, pull: PullSettings) -> Stream:
        """The stream with its fields and their types."""
        assert isinstance(pull, SalesforcePull)
        with self._http() as http:
            try:
                described = describe(Api(http, self.api_version), pull.stream)
            except MuxlyError as error:
                raise _told(error, pull.stream) from None
        fields = described.chosen(pull.fields, formulas=pull.formulas)
        return replace(self.stream(pull), schema=schema_of(fields), deletes=described.hears_deletes or described.logs_deletes)

    @classmethod
    def declaration(cls) -> Declaration:
        """Objects of most organisations, actions and the API's version."""
        limits = ("100,000 requests in 24 hours and more for each licence", "10,000 bulk query jobs in 24 hours")
        streams = tuple(_stream(name, about) for name, about in OBJECTS.items())
        about = Metadata(api_version=API_VERSION, limits=limits)
        return Declaration(streams, actions=tuple(actions.actions()), metadata=about, docs=_DOCS)

    def streams(self) -> list[Stream]:
        """Every object that the user may query, custom ones too."""
        with self._http() as http:
            return [_stream(each.name, each.label) for each in list_objects(Api(http, self.api_version))]

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Read the stream's news; the next batch is made while the last one is stored."""
        assert isinstance(pull, SalesforcePull)
        self.stream(pull)
        with self._http() as http:
            api = Api(http, self.api_version, threading.Event())

            def give_up() -> None:
                api.stop.set()
                http.close()

            try:
                yield from read_ahead(self._batches(api, pull, cursor, known), give_up)
            except MuxlyError as error:
                raise _told(error, pull.stream) from None

    def check_pull(self, pull: PullSettings) -> Sequence[str]:
        """Objects and fields that there are not, or that the user may not see."""
        assert isinstance(pull, SalesforcePull)
        try:
            with self._http() as http:
                described = describe(Api(http, self.api_version), pull.stream)
        except ConfigurationError as error:
            return tuple(map(str, error.problems))
        except MuxlyError as error:
            return (f"{error.what}; {error.do}",)
        return tuple(map(str, described.problems(pull.fields)))

    def test_connection(self) -> CheckResult:
        """Ask for the organisation's limits."""
        try:
            with self._http() as http:
                api = Api(http, self.api_version)
                tried = f"GET {api.path('limits')}"
                used = usage(api.get(api.path("limits")))
        except MuxlyError as error:
            told = _told(error, "")
            return CheckResult("failed", f"sign in at {self.instance_url} and ask for its limits", told.what, told.do)
        return CheckResult("ok", tried, f"{used[0]:,} of {used[1]:,} requests of 24 hours used" if used else "answered")

    def metadata(self) -> Metadata:
        """The organisation, and what is left of its allowances."""
        soql = "SELECT Id, Name, OrganizationType, InstanceName, IsSandbox FROM Organization"
        with self._http() as http:
            api = Api(http, self.api_version)
            found = api.get(api.path("query"), {"q": soql}).json()["records"]
            limits = api.get(api.path("limits")).json()
        names = {"DailyApiRequests": "requests", "DailyBulkV2QueryJobs": "bulk query jobs"}
        said = [
            f"{limits[name]['Max']:,} {what} in 24 hours, {limits[name]['Remaining']:,} left"
            for name, what in names.items()
            if name in limits
        ]
        account = {name: value for name, value in (found[0] if found else {}).items() if name != "attributes"}
        return Metadata(str(account.pop("Id", "")), self.api_version, limits=tuple(said), details=account)

    def actions(self) -> Sequence[Action]:
        """Creating, changing, upserting and deleting records."""
        return actions.actions()

    def act(self, action: str, inputs: Mapping[str, Any]) -> Any:
        """Do it: the record's id, and whether it was created."""
        parsed = actions.parse(action, inputs)
        with self._http() as http:
            try:
                return actions.act(Api(http, self.api_version), parsed)
            except MuxlyError as error:
                raise _told(error, parsed.object) from None

    # ---- how ----

    def _batches(self, api: Api, pull: SalesforcePull, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        described = describe(api, pull.stream)
        fields = tuple(described.chosen(pull.fields, formulas=pull.formulas))
        # Without named fields, one that appears is read from its next change on; what is named is read anew for all.
        asked = orjson.dumps([sorted(name.lower() for name in pull.fields), pull.formulas]).decode()
        overlap = parse_duration(self.overlap)
        plan = Plan(described, fields, asked, pull.mode, self.bulk_from, _seconds(self.bulk_timeout), overlap)
        yield from read(api, plan, cursor, None if known is None else pa.schema([each for each in known if each.name != DELETED]))

    def _http(self) -> Http:
        token_url = f"{self.instance_url}/services/oauth2/token"
        secret = self.auth.token if isinstance(self.auth, Bearer) else self.auth.client_secret
        user = hashlib.sha256(secret.get_secret_value().encode()).hexdigest()[:16]
        return Http(
            self.instance_url,
            auth=sign_in(self.auth, token_url=token_url),
            limits=[Limit(concurrency=8)],
            headers={"Accept": "application/json, text/csv"},
            judge=judge,
            turns=self.services.turns,
            account=f"salesforce:{urlsplit(self.instance_url).netloc}:{user}",
        )


def _stream(name: str, about: str) -> Stream:
    return Stream(name, ("Id",), "cursor", description=about, deletes=name.lower() != "user")


def _seconds(text: str) -> float:
    return parse_duration(text) / dt.timedelta(seconds=1)


def _told(error: MuxlyError, stream: str) -> MuxlyError:
    """The error with the object's name, and for a refused token what to do about it."""
    if isinstance(error, SignInError) and "401" in error.what:
        error.do = "sign in again, and check that the app is approved for this user and that instance_url is this organisation's"
    if stream and not isinstance(error, ConfigurationError):
        error.what = f"salesforce {stream}: {error.what}"
    return error
