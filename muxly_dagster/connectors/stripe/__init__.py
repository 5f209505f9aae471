"""The stripe connector: an account's objects, all of them once and then what events tell of; and things to do in the account."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import orjson
import pyarrow as pa
from pydantic import Field, StringConstraints

from muxly_dagster.auth import Bearer
from muxly_dagster.connector import Action, Batch, Connector, Cursor, Declaration, Metadata, PullSettings, Stream
from muxly_dagster.connectors.stripe import actions
from muxly_dagster.connectors.stripe.api import API_VERSION, BASE_URL, Api, judge
from muxly_dagster.connectors.stripe.collections import CURSOR, DELTA, ITEMS, known_streams, stream_of
from muxly_dagster.connectors.stripe.reading import Plan, read_changes, read_ledger
from muxly_dagster.errors import ConfigurationError, MuxlyError, SignInError
from muxly_dagster.http import Http, Limit
from muxly_dagster.manifest.reading.ahead import read_ahead
from muxly_dagster.resource import CheckResult

_DOCS = "https://docs.stripe.com/api"

Expansion = Annotated[str, StringConstraints(pattern=r"^[a-z_]+(\.[a-z_]+){0,2}$")]


class StripePull(PullSettings):
    """What a pull reads of a collection."""

    expand: list[Expansion] = Field(
        [], description="Fields that hold an id and shall hold the whole object, such as `customer` or `latest_charge.balance_transaction`."
    )


class Stripe(Connector):
    """A Stripe account, by its secret key or a restricted one."""

    id: ClassVar[str] = "stripe"
    title: ClassVar[str] = "Stripe"
    Pull: ClassVar[type[PullSettings]] = StripePull
    example: ClassVar[Mapping[str, Any]] = {
        "auth": {"kind": "bearer", "token": "${STRIPE_KEY}"},
        "pulls": ["customers", "charges", "invoices", "subscriptions"],
    }

    auth: Bearer = Field(description="The account's secret key, or better a restricted key that may read what is pulled, and events.")
    connected_account: str = Field(
        "", pattern=r"^(acct_\w+)?$", description="The connected account to speak for (`acct_...`), for platforms."
    )
    api_version: str = Field(
        API_VERSION,
        pattern=r"^\d{4}-\d{2}-\d{2}(\.\w+)?$",
        description="The version that objects are rendered in. With the account's own default version, changes take fewer requests.",
    )
    base_url: str = Field(BASE_URL, description="Another address than Stripe's own, such as a proxy's.")
    requests_per_second: float = Field(20, gt=0, description="Requests per second: Stripe allows 100 in live mode and 25 in test mode.")

    # ---- the contract ----

    def stream(self, pull: PullSettings) -> Stream:
        """Describe a collection's stream."""
        stream = stream_of(pull.stream)
        if pull.key not in (None, ["id"]):
            raise ConfigurationError(f"stripe {stream.name}: the key is `id`", do="leave `key` out: events name objects by it")
        if isinstance(pull, StripePull) and pull.expand and pull.stream in (ITEMS, "events"):
            raise ConfigurationError(f"stripe {stream.name}: nothing can be expanded here", do="leave `expand` out")
        return stream

    @classmethod
    def declaration(cls) -> Declaration:
        """Every stream and action, the budgets, and the API's version."""
        limits = ("100 requests per second in live mode, 25 in test mode",)
        about = Metadata(api_version=API_VERSION, limits=limits)
        return Declaration(known_streams(), actions=tuple(actions.actions()), metadata=about, docs=_DOCS)

    def streams(self) -> list[Stream]:
        """The same for every account."""
        return list(known_streams())

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Read the stream's news; the next batch is made while the last one is stored."""
        assert isinstance(pull, StripePull)
        self.stream(pull)
        expand = tuple(sorted(pull.expand))
        asked = orjson.dumps([expand, self.api_version, self.connected_account]).decode()
        plan = Plan({**DELTA, **CURSOR}[pull.stream], asked, self.api_version, expand, pull.stream == ITEMS)
        read = read_changes if pull.stream in DELTA else read_ledger
        with self._http() as http:
            try:
                yield from read_ahead(read(Api(http), plan, cursor, known), http.close)
            except MuxlyError as error:
                raise _told(error, pull.stream) from None

    def test_connection(self) -> CheckResult:
        """Ask for the newest event: every pull needs to read them."""
        tried = "GET /v1/events"
        try:
            with self._http() as http:
                Api(http).get("events", {"limit": 1})
        except MuxlyError as error:
            told = _told(error, "")
            return CheckResult("failed", tried, told.what, told.do)
        return CheckResult("ok", tried, f"answered as version {self.api_version} ({self._mode()} mode)")

    def metadata(self) -> Metadata:
        """The account where the key may see it, and the API's version."""
        with self._http() as http:
            try:
                account = Api(http).get("account").json()
            except SignInError:
                account = {}  # restricted keys need a permission of their own for it
        details = {name: account[name] for name in ("country", "default_currency", "charges_enabled", "payouts_enabled") if name in account}
        limits = (f"{self.requests_per_second:g} requests per second",)
        name = str(account.get("id", self.connected_account))
        return Metadata(name, self.api_version, limits=limits, details={"mode": self._mode(), **details})

    def actions(self) -> Sequence[Action]:
        """Customers, refunds, invoices, subscriptions, payments."""
        return actions.actions()

    def act(self, action: str, inputs: Mapping[str, Any]) -> Any:
        """Do it once, and give the object as Stripe answers it."""
        request = actions.prepare(action, inputs)
        with self._http() as http:
            return actions.act(Api(http), request)

    # ---- how ----

    def _mode(self) -> Literal["live", "test"]:
        return "test" if "_test_" in self.auth.token.get_secret_value()[:9] else "live"

    def _http(self) -> Http:
        headers = {"Accept": "application/json", "Stripe-Version": self.api_version}
        if self.connected_account:
            headers["Stripe-Account"] = self.connected_account
        secret = self.auth.token.get_secret_value()
        return Http(
            self.base_url,
            auth=self.auth,
            limits=[Limit(per_second=self.requests_per_second)],
            headers=headers,
            judge=judge,
            turns=self.services.turns,
            # No name of the account is known without asking; who has its key has its budget.
            account=f"stripe:{hashlib.sha256(secret.encode()).hexdigest()[:16]}",
        )


def _told(error: MuxlyError, stream: str) -> MuxlyError:
    """The error with the stream's name, and for a refused key what to do about it."""
    if isinstance(error, SignInError) and "401" in error.what:
        error.do = "copy the key anew from Stripe's page of API keys: it is incomplete, was rolled, or belongs to another mode"
    if stream and not isinstance(error, ConfigurationError):
        error.what = f"stripe {stream}: {error.what}"
    return error
