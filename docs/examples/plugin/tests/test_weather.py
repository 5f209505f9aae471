"""The connector keeps the promises of every connector; the badge opens the door."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from acme_weather.auth import WeatherBadge
from acme_weather.connector import Weather
from acme_weather.destination import Bulletin
from acme_weather.transform import Fahrenheit
from station import SECRET, STATION, Stations

from muxly_dagster.auth import CustomAuth
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.testing import ConnectorContract, delivery


@pytest.fixture
def provider() -> Iterator[Stations]:
    with Stations() as api:
        yield api


class TestWeather(ConnectorContract):
    pass


def test_a_badge_signs_in(provider: Stations) -> None:
    badge = CustomAuth(use="weather_badge", settings={"station": STATION, "secret": SECRET})
    badge.bind(WeatherBadge)
    assert Weather(auth=badge, base_url=provider.url).test_connection().status == "ok"
    with pytest.raises(ConfigurationError, match="needs secret"):
        WeatherBadge({"station": STATION})


def test_bulletins_follow_the_records(tmp_path: Path) -> None:
    bulletin = Bulletin(path=str(tmp_path / "out"))
    assert bulletin.deliver(delivery([{"id": 1, "sky": "clear"}], key=("id",))).accepted == 1
    assert (tmp_path / "out" / "1.txt").read_text() == "id: 1\nsky: clear\n"


def test_the_step_names_the_column_that_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="celsius"):
        Fahrenheit().sql("t", pa.schema([("id", pa.int64())]))
