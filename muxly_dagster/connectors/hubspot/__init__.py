"""The hubspot connector: records of HubSpot's CRM, all of them once and then what changed, with types, histories and associations."""

import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field, SecretStr, field_validator

from muxly_dagster.auth import ApiKey, Bearer, OAuth2
from muxly_dagster.connector import Action, Batch, Connector, Cursor, Declaration, Metadata, PullSettings, Stream
from muxly_dagster.connectors.hubspot import webhooks
from muxly_dagster.connectors.hubspot.api import API_VERSION, BASE_URL, Api, budgets, checked, clock, judge, sunset
from muxly_dagster.connectors.hubspot.directories import read_owners, read_pipelines
from muxly_dagster.connectors.hubspot.objects import Wanted
from muxly_dagster.connectors.hubspot.properties import Schema, ask_schema, check_names, read_schema
from muxly_dagster.connectors.hubspot.reading import Plan, read
from muxly_dagster.connectors.hubspot.streams import DIRECTORIES, check_type, known_streams, stream_of
from muxly_dagster.errors import ConfigurationError, MuxlyError, SignInError
from muxly_dagster.http import Http, Request, sign_in
from muxly_dagster.manifest.reading.ahead import read_ahead
from muxly_dagster.measures import parse_duration
from muxly_dagster.resource import CheckResult

_DOCS = "https://developers.hubspot.com/docs/api-reference/latest/overview"


class HubspotPull(PullSettings):
    """What a pull reads of an object type."""

    properties: list[str] = Field([], description="Properties to read; all that are not hidden unless told otherwise.")
    history: list[str] = Field([], description="Properties whose earlier values are read too, as JSON in `properties_with_history`.")
    associations: list[str] = Field([], description="Object types whose associations are read, as JSON in `associations_TYPE`.")
    archived_every: str = Field(
        "0s", description="How often to look for archived records, such as `6h`: every pull (`0s`) unless told otherwise, or `never`."
    )
    object_types: list[str] = Field(
        ["deals", "tickets"], min_length=1, description="For `pipelines`: the object types whose pipelines are read."
    )
    archived: bool = Field(False, description="For `owners`: whether to read those that left the account too.")

    @field_validator("archived_every")
    @classmethod
    def _is_duration(cls, text: str) -> str:
        if text != "never":
            _duration(text)
        return text

    @property
    def every(self) -> dt.timedelta | None:
        """The time between two looks at the archive; None: never."""
        return None if self.archived_every == "never" else _duration(self.archived_every)


class Hubspot(Connector):
    """HubSpot's CRM, by a service key, a private app's token, or OAuth."""

    id: ClassVar[str] = "hubspot"
    title: ClassVar[str] = "HubSpot"
    Pull: ClassVar[type[PullSettings]] = HubspotPull
    example: ClassVar[Mapping[str, Any]] = {
        "auth": {"kind": "bearer", "token": "${HUBSPOT_TOKEN}"},
        "pulls": ["contacts", "companies", "deals", "owners"],
    }

    auth: Annotated[Bearer | OAuth2, Field(discriminator="kind")] = Field(
        description="A service key or a private app's token (`kind: bearer`), or an app and the refresh token of who installed it "
        "(`kind: oauth2`)."
    )
    api_version: str = Field(
        API_VERSION, pattern=r"^\d{4}-(0[1-9]|1[0-2])(-beta)?$", description="The date version that stands in every path."
    )
    base_url: str = Field(BASE_URL, description="Another address than HubSpot's own, such as a proxy's.")
    lag: str = Field(
        "2m", description="How long HubSpot's search may take to know of a change; changes younger than this wait for the next pull."
    )
    requests_per_10s: int = Field(100, ge=1, description="Requests in any 10 seconds: 190 from Professional on, 110 for OAuth.")
    searches_per_second: float = Field(5, gt=0, description="Searches per second; all apps of the account share 5.")
    app_id: int | None = Field(None, description="The public app's id, for webhooks.")
    developer_key: SecretStr | None = Field(None, description="The developer account's API key, for webhooks.")

    @field_validator("lag")
    @classmethod
    def _is_duration(cls, text: str) -> str:
        _duration(text)
        return text

    @field_validator("auth")
    @classmethod
    def _refreshes(cls, auth: Bearer | OAuth2) -> Bearer | OAuth2:
        if isinstance(auth, OAuth2) and auth.refresh_token is None:
            raise ValueError("needs a `refresh_token`: HubSpot gives tokens for its CRM only to apps that somebody installed")
        return auth

    # ---- the contract ----

    def stream(self, pull: PullSettings) -> Stream:
        """Describe an object type's stream, or one of the two directories."""
        stream = stream_of(pull.stream)
        for other in pull.associations if isinstance(pull, HubspotPull) else ():
            check_type(other, "object type")
        if stream.sync == "cursor" and pull.key not in (None, ["id"]):
            do = "leave `key` out: archived and merged records are known by it"
            raise ConfigurationError(f"hubspot {stream.name}: the key is `id`", do=do)
        return stream

    @classmethod
    def declaration(cls) -> Declaration:
        """The standard objects and directories, the budgets, and the API's version."""
        limits = ("100 requests per 10 s, 190 from Professional on, 110 for OAuth", "5 searches per second, for all apps of an account")
        about = Metadata(api_version=API_VERSION, sunset=sunset(API_VERSION), limits=limits)
        return Declaration(known_streams(), actions=tuple(webhooks.actions()), metadata=about, docs=_DOCS)

    def streams(self) -> list[Stream]:
        """The standard objects, the directories, and the account's own objects where it has any and the app may see them."""
        found = list(known_streams())
        with self._http() as http:
            api = Api(http, self.api_version)
            response = http.request(Request("GET", api.path("crm-object-schemas", "schemas")))
            if response.status == 403:
                return found  # custom objects take a scope of their own, and a subscription that most accounts do not have
            for schema in checked(response).json().get("results") or []:
                label = (schema.get("labels") or {}).get("plural") or schema.get("name") or ""
                found.append(replace(stream_of(schema["fullyQualifiedName"]), description=f"{label} (custom)"))
        return found

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Read the stream's news; the next batch is made while the last one is stored."""
        assert isinstance(pull, HubspotPull)
        self.stream(pull)
        with self._http() as http:
            try:
                yield from read_ahead(self._batches(Api(http, self.api_version), pull, cursor, known), http.close)
            except MuxlyError as error:
                raise _told(error, pull.stream) from None

    def check_pull(self, pull: PullSettings) -> Sequence[str]:
        """Names of properties that the object type does not have."""
        assert isinstance(pull, HubspotPull)
        if pull.stream in DIRECTORIES:
            return ()
        try:
            with self._http() as http:
                schema = ask_schema(Api(http, self.api_version), pull.stream)
        except MuxlyError as error:
            return (f"{error.what}; {error.do}",)
        return tuple(f"{p.what}; {p.do}" for p in schema.problems([*pull.properties, *pull.history]))

    def test_connection(self) -> CheckResult:
        """Ask for the account's details, which takes no scope."""
        tried = f"GET /account-info/{self.api_version}/details"
        try:
            with self._http() as http:
                account = Api(http, self.api_version).get("account-info", "details").json()
        except MuxlyError as error:
            told = _told(error, "")
            return CheckResult("failed", tried, told.what, told.do)
        return CheckResult("ok", tried, f"account {account.get('portalId')} ({account.get('accountType')}, {account.get('timeZone')})")

    def metadata(self) -> Metadata:
        """The account, and for a private app what is left of the day's requests."""
        with self._http() as http:
            api = Api(http, self.api_version)
            account = api.get("account-info", "details").json()
            usage = http.request(Request("GET", api.path("account-info", "api-usage", "daily", "private-apps")))
            used = usage.json().get("results") or [] if usage.status == 200 else []
        limits = [f"{self.requests_per_10s} requests per 10 s", f"{self.searches_per_second:g} searches per second"]
        for each in used:
            left = each["usageLimit"] - each["currentUsage"]
            limits.append(f"{each['usageLimit']:,} requests per day, {left:,} left until {each.get('resetsAt') or 'midnight'}")
        names = ("accountType", "timeZone", "companyCurrency", "dataHostingLocation", "uiDomain")
        details = {name: account[name] for name in names if account.get(name)}
        return Metadata(str(account.get("portalId", "")), self.api_version, sunset(self.api_version), tuple(limits), details)

    def actions(self) -> Sequence[Action]:
        """Registering webhooks."""
        return webhooks.actions()

    def act(self, action: str, inputs: Mapping[str, Any]) -> Any:
        """Do it, and give the app's settings and subscriptions, or what was deleted."""
        parsed = webhooks.parse(action, inputs)
        if self.app_id is None:
            do = "set `app_id` of a public app; the webhooks of a private app are set on its own settings page in HubSpot"
            raise ConfigurationError("webhooks belong to an app, and this source does not say to which", do=do)
        key = ApiKey(key=self.developer_key, into="query", name="hapikey") if self.developer_key else None
        with self._http(key) as http:
            try:
                return webhooks.act(Api(http, self.api_version), self.app_id, parsed)
            except SignInError as error:
                error.do = (
                    "webhooks of a public app take the developer account's key: set `developer_key`; those of a private app have no API"
                )
                raise

    # ---- how ----

    def _batches(self, api: Api, pull: HubspotPull, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        if pull.stream == "owners":
            yield from read_owners(api, known, archived=pull.archived)
            return
        if pull.stream == "pipelines":
            yield from read_pipelines(api, pull.object_types, known)
            return
        response = api.get("crm/properties", pull.stream)
        schema: Schema = read_schema(response)
        check_names(schema, [*pull.properties, *pull.history], pull.stream)
        wanted = Wanted(
            object_type=pull.stream,
            properties=tuple(schema.chosen(pull.properties)),
            types=schema.types,
            history=tuple(pull.history),
            associations=tuple(dict.fromkeys(pull.associations)),
        )
        asked = (tuple(pull.properties), wanted.history, wanted.associations)
        yield from read(api, Plan(wanted, asked, clock(response), _duration(self.lag), pull.every), cursor, known)

    def _http(self, auth: ApiKey | None = None) -> Http:
        version = API_VERSION if self.api_version.endswith("-beta") else self.api_version  # betas bring no tokens of their own
        signed_in = auth or sign_in(self.auth, token_url=f"{self.base_url.rstrip('/')}/oauth/{version}/token")
        secret = self.auth.token if isinstance(self.auth, Bearer) else self.auth.refresh_token
        assert secret is not None
        return Http(
            self.base_url,
            auth=signed_in,
            limits=budgets(self.requests_per_10s, self.searches_per_second),
            headers={"Accept": "application/json"},
            judge=judge,
            turns=self.services.turns,
            # No name of the account is known without asking; who has its token has its budget.
            account=f"hubspot:{hashlib.sha256(secret.get_secret_value().encode()).hexdigest()[:16]}",
        )


def _told(error: MuxlyError, stream: str) -> MuxlyError:
    """The error with the stream's name, and for a refused token what to do about it."""
    if isinstance(error, SignInError) and "401" in error.what:
        error.do = (
            "copy the service key or the private app's token anew, or have the OAuth app installed again: "
            "it was revoked, replaced or has run out"
        )
    if stream and not isinstance(error, ConfigurationError):
        error.what = f"hubspot {stream}: {error.what}"
    return error


def _duration(text: str) -> dt.timedelta:
    return dt.timedelta() if text in ("", "0", "0s") else parse_duration(text)
