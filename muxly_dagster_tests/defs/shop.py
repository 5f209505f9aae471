"""A small shop's project, assembled by hand: one source, one transform, one route to two destinations, all in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import PrivateAttr, SecretStr

from muxly_dagster import records
from muxly_dagster.assembly import Assembly, Pull, Target, Transform
from muxly_dagster.connector import Batch, Connector, Cursor, PullSettings, Stream, Unreadable
from muxly_dagster.destination import Delivery, Destination, Receipt, Refusal
from muxly_dagster.errors import MuxlyError
from muxly_dagster.project.models import JobSpec, Project, RouteSpec, TransformSpec
from muxly_dagster.resource import CheckResult
from muxly_dagster.routing import Router, Rule
from muxly_dagster.settings import Settings

SECRET = "sh0p-s3cret"

ORDERS = Stream("orders", ("id",), schema=pa.schema([("id", pa.int64()), ("amount", pa.float64())]), description="What was bought.")


class Shop(Connector):
    """A source whose records, unreadable records and troubles a test sets."""

    id: ClassVar[str] = "shop"
    title: ClassVar[str] = "Shop"
    token: SecretStr = SecretStr(SECRET)
    _rows: list[dict[str, Any]] = PrivateAttr(default_factory=list)
    _unreadable: list[Unreadable] = PrivateAttr(default_factory=list)
    _troubles: list[Exception] = PrivateAttr(default_factory=list)

    def stream(self, pull: PullSettings) -> Stream:
        return ORDERS

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        if self._troubles:
            raise self._troubles.pop(0)
        yield Batch(records.normalise(pa.Table.from_pylist(self._rows)), unreadable=tuple(self._unreadable))

    def test_connection(self) -> CheckResult:
        return CheckResult("ok", "nothing")


class Basket(Destination):
    """A destination that keeps what it takes; it refuses what a test tells it to, and fails as often as there are troubles."""

    type: ClassVar[str] = "basket"
    title: ClassVar[str] = "Basket"
    password: SecretStr = SecretStr(SECRET)
    _taken: list[dict[str, Any]] = PrivateAttr(default_factory=list)
    _refused_ids: set[int] = PrivateAttr(default_factory=set)
    _troubles: list[MuxlyError] = PrivateAttr(default_factory=list)

    def deliver(self, delivery: Delivery) -> Receipt:
        if self._troubles:
            raise self._troubles.pop(0)
        rows = delivery.rows.to_pylist()
        refused = tuple(Refusal(row[records.SEQ], "not wanted") for row in rows if row["id"] in self._refused_ids)
        self._taken += [row for row in rows if row["id"] not in self._refused_ids]
        return Receipt(len(rows) - len(refused), refused)

    def check(self) -> CheckResult:
        return CheckResult("ok", "nothing")

    def public_name(self, table: str) -> str:
        return f"basket/{table}"


def settings(folder: Path) -> Settings:
    """Everything of Muxly's in one folder; the database's URL has a password that must not be seen."""
    return Settings(project=folder / "muxly.yaml", home=folder, database_url=f"sqlite:///{folder}/state.db", lake_url=str(folder / "lake"))


def assembly(
    shop: Shop | None = None, baskets: dict[str, Basket] | None = None, *, jobs: dict[str, JobSpec] | None = None, **pull: Any
) -> Assembly:
    """Source `shop` with the pull `orders`, transform `totals`, route `sales` to `big` (amount > 10) and `rest`."""
    shop = shop or Shop()
    baskets = baskets or {"big": Basket(), "rest": Basket()}
    router = Router([Rule("amount > 10", ("big",))], otherwise=("rest",))
    route = RouteSpec.model_validate({"from": "shop.orders", "rules": [{"when": "amount > 10", "to": "big"}], "otherwise": "rest"})
    totals = TransformSpec.model_validate({"sql": "select count(*) as orders, sum(amount) as amount from shop.orders"})
    return Assembly(
        project=Project(),
        sources={"shop": shop},
        destinations=baskets,
        pulls={"shop.orders": Pull("shop.orders", "shop", shop, PullSettings(stream="orders", **pull), ORDERS)},
        transforms={"totals": Transform("totals", totals, ("shop.orders",), ())},
        targets={
            f"sales.{name}": Target(f"sales.{name}", "sales", route, "shop.orders", ("id",), "shop", name, basket, router)
            for name, basket in baskets.items()
        },
        jobs=jobs or {},
    )
