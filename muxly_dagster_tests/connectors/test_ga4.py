"""The ga4 connector keeps the promises of every connector, against the Data API's own client and protobufs."""

from collections.abc import Iterator
from typing import ClassVar

import pytest

from muxly_dagster.testing.connectors import ConnectorContract
from muxly_dagster_tests.peers.ga4 import Analytics


class TestGa4(ConnectorContract):
    refreshes: ClassVar[bool] = True
    drifts: ClassVar[bool] = False

    @pytest.fixture
    def provider(self) -> Iterator[Analytics]:
        with Analytics() as analytics:
            yield analytics
