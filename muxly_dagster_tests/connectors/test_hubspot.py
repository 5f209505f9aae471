"""The hubspot connector keeps the connectors' promises, signed in by a private app's token and by OAuth."""

from collections.abc import Iterator

import pytest

from muxly_dagster.testing import ConnectorContract
from muxly_dagster_tests.peers.hubspot import HubspotAccount


class TestPrivateApp(ConnectorContract):
    @pytest.fixture
    def provider(self) -> Iterator[HubspotAccount]:
        with HubspotAccount() as account:
            account.page = 3
            yield account


class TestOAuth(ConnectorContract):
    refreshes = True

    @pytest.fixture
    def provider(self) -> Iterator[HubspotAccount]:
        with HubspotAccount(oauth=True) as account:
            account.page = 3
            yield account


class TestById(ConnectorContract):
    """With a history, the first pull reads by id too."""

    @pytest.fixture
    def provider(self) -> Iterator[HubspotAccount]:
        with HubspotAccount() as account:
            account.page = 3
            account.pull = {"stream": "contacts", "history": ["firstname"]}
            yield account
