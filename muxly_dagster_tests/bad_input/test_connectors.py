"""What a provider refuses: the pull says what to do, its place is kept, and what was missed comes once when the trouble is over."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError
from muxly_dagster.lake import Lake
from muxly_dagster.state import State
from muxly_dagster.testing import Pulled
from muxly_dagster_tests.bad_input.shop import clear
from muxly_dagster_tests.bad_input.test_answers import matches
from muxly_dagster_tests.connectors.lab import lab
from muxly_dagster_tests.connectors.test_bigquery import Orders
from muxly_dagster_tests.peers.bigquery_sql import Relation
from muxly_dagster_tests.peers.ga4 import Analytics
from muxly_dagster_tests.peers.gmail import Gmail
from muxly_dagster_tests.peers.hubspot import HubspotAccount

Mend = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """Where it happens, what goes wrong (given a folder; answers with what ends it), and the error that must come of it."""

    provider: Callable[[], AbstractContextManager[Any]]
    trouble: Callable[[Any, Path], Mend]
    error: type[MuxlyError]
    what: str
    do: str


def nothing_to_mend() -> None:
    """The trouble passes by itself, or somebody else's work ends it."""


# ---- troubles --------------------------------------------------------------------------------------------------------


@contextmanager
def view() -> Iterator[Orders]:
    """A view of BigQuery's over a table, pulled by the time of change."""
    with lab() as found:
        orders = Orders(found)
        found.bigquery.tables["shop.seen"] = Relation(kind="VIEW", view="SELECT id, text, updated_at FROM shop.orders")
        orders.pull = {"stream": "shop.seen", "key": ["id"], "cursor": "updated_at"}
        orders.denied = found.bigquery.denied  # type: ignore[attr-defined]
        yield orders


def wrong_key_file(analytics: Any, folder: Path) -> Mend:
    """The file that the source names holds half a key."""
    path, right = folder / "key.json", analytics.connector
    path.write_text(right().auth.key.get_secret_value()[:-9], "utf-8")
    analytics.connector = lambda: right(auth={"kind": "service_account", "key_file": str(path)})

    def mend() -> None:
        path.write_text(right().auth.key.get_secret_value(), "utf-8")

    return mend


def expired_token(account: Any, _: Path) -> Mend:
    """The token has run out, and nobody but its owner can make another."""
    account.fail_once(401)
    return nothing_to_mend


def withdrawn(account: Any, _: Path) -> Mend:
    """The user has withdrawn what was given to the app."""
    account.forget()
    return account.remember  # type: ignore[no-any-return]


def missing_scope(account: Any, _: Path) -> Mend:
    """The app was never given the right to read contacts."""
    account.missing_scopes["contacts"] = "crm.objects.contacts.read"
    return account.missing_scopes.clear  # type: ignore[no-any-return]


def unknown_property(account: Any, _: Path) -> Mend:
    """A property has been renamed, or mistyped."""
    right = account.pull
    account.pull = {**right, "properties": ["fristname"]}

    def mend() -> None:
        account.pull = {**right, "properties": ["firstname"]}

    return mend


def quota_in_mid_report(analytics: Any, _: Path) -> Mend:
    """The question what day it is, and the first page of the report, are the last that is answered."""
    analytics.break_after(2)
    before = len(analytics.seen)

    def mend() -> None:
        assert getattr(analytics.seen[-1], "offset", 0), "a later page is what was refused"
        assert len(analytics.seen) - before > 2
        analytics.mend()

    return mend


def view_without_rights(orders: Any, _: Path) -> Mend:
    """The account may look at the view, but not at the table behind it."""
    orders.denied.add("bigquery.tables.getData")
    return orders.denied.clear  # type: ignore[no-any-return]


class Mailbox(Gmail):
    """A mailbox whose owner changes his mind."""

    def __init__(self) -> None:
        super().__init__(refreshing=True)

    def forget(self) -> None:
        self._given, self._refresh, self._access = self._refresh, "an0ther-refresh-t0ken", "an0ther-t0ken"

    def remember(self) -> None:
        self._refresh = self._given

    def connector(self, *, wrong: bool = False, **fields: Any) -> Any:
        """Signed in with what was given at first, whatever became of it."""
        now, self._refresh = self._refresh, getattr(self, "_given", self._refresh)
        try:
            return super().connector(wrong=wrong, **fields)
        finally:
            self._refresh = now


CASES = {
    "a wrong key file": Case(
        Analytics, wrong_key_file, ConfigurationError, "the service account's key is not JSON", "give the whole file as it came"
    ),
    "an expired token": Case(HubspotAccount, expired_token, SignInError, "EXPIRED_AUTHENTICATION", "private app's token anew"),
    "a refresh token that was withdrawn": Case(Mailbox, withdrawn, SignInError, "invalid_grant", "let the user sign in again"),
    "a missing scope": Case(
        HubspotAccount,
        missing_scope,
        SignInError,
        r"lacks a permission \(scope\): crm\.objects\.contacts\.read",
        "add crm.objects.contacts",
    ),
    "an unknown property": Case(HubspotAccount, unknown_property, ConfigurationError, "no property 'fristname'", "did you mean firstname"),
    "a quota that runs out in mid-report": Case(Analytics, quota_in_mid_report, RetryLater, "the property's quota is used up", "hour"),
    "a view without rights": Case(view, view_without_rights, SignInError, r"bigquery\.tables\.getData", "the tables behind it"),
}


def place(pulled: Pulled) -> Any:
    """The cursor that the next pull would begin at."""
    table = Lake(str(pulled.folder / "lake")).table(pulled.name)
    assert table is not None
    state = State.open(f"sqlite:///{pulled.folder / 'state.db'}", pulled.folder)
    try:
        return state.cursors.read(pulled.name, table.cursor_version or 0)
    finally:
        state.close()


@pytest.mark.parametrize("name", CASES)
def test_what_a_provider_refuses_costs_nothing_but_time(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    with case.provider() as provider:
        pulled = Pulled(provider, tmp_path)
        provider.put(1, 2, 3, text="first")
        assert pulled.run().changed == 3
        begun = place(pulled)
        assert begun is not None
        provider.put(2, text="second")
        provider.put(4, text="first")
        mend = case.trouble(provider, tmp_path)

        with pytest.raises(MuxlyError) as caught:
            pulled.run()
        error = clear(caught.value)
        assert isinstance(error, case.error), error
        assert matches(case.what, error.what)
        assert matches(case.do, "; ".join(each.do for each in error.problems) if isinstance(error, ConfigurationError) else error.do), error
        assert place(pulled) == begun
        assert pulled.texts().keys() >= {1, 2, 3}

        mend()
        pulled.run()
        assert pulled.texts() == {1: "first", 2: "second", 3: "first", 4: "first"}
        assert len(pulled.ops()) == 5, "three records, one that changed and one that came: none of them twice"
        assert [secret for secret in provider.secrets if secret in "".join(pulled.told)] == []
