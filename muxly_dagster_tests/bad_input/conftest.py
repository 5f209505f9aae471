"""What the bad-input tests share: a whole project on disk, its API on loopback, its warehouse in SQLite or Postgres."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from muxly_dagster import delivery
from muxly_dagster.http import Http, Retries
from muxly_dagster_tests.bad_input.shop import Api, Shop
from muxly_dagster_tests.http.server import Server

Open = Callable[..., Shop]


@pytest.fixture
def api() -> Api:
    """The API of the shop, in good health: three pages with four records each."""
    return Api()


@pytest.fixture
def server(api: Api) -> Iterator[Server]:
    """Answers for the API on a free port."""
    with Server(api.reply) as server:
        yield server


@pytest.fixture
def shop(tmp_path: Path, server: Server, api: Api) -> Shop:
    """The project: what the API has goes to the table `shop_things` in SQLite, every change a row."""
    return Shop(tmp_path, server.url, api, f"sqlite:///{tmp_path}/warehouse.db")


@pytest.fixture
def open_shop(tmp_path: Path, server: Server, api: Api) -> Open:
    """Makes the same project with something else in it: `open_shop(stream={...}, warehouse={...}, url="postgresql://...")`."""

    def make(url: str = "", **changes: object) -> Shop:
        return Shop(tmp_path, server.url, api, url or f"sqlite:///{tmp_path}/warehouse.db", **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many attempts as ever, but no pause between them."""
    defaults = Http.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "retries", Retries(base=0))
    monkeypatch.setattr(delivery.Patience, "wait", lambda *_: None)
