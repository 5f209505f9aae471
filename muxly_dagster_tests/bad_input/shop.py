"""A shop's project as a user would write it, and the API that it reads."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from muxly_dagster.errors import MuxlyError
from muxly_dagster.lake import LakeTable
from muxly_dagster.outcome import Outcome
from muxly_dagster.runtime import Runtime
from muxly_dagster.settings import Settings
from muxly_dagster.state import DeadLetter
from muxly_dagster_tests.http.server import Asked, json_answer

TOKEN = "s3cr3t-t0ken-of-the-shop"
PULL, TARGET, TABLE = "shop.things", "out.warehouse", "shop_things"

Trouble = Callable[[Asked], bytes | list[bytes] | None]
"""What the API answers in place of a page; None for the page after all."""


def things(*numbers: int) -> list[dict[str, Any]]:
    """Records with an id and an amount."""
    return [{"id": f"t{n:04}", "amount": n} for n in numbers]


@dataclass
class Api:
    """Serves pages by cursor (`?page=1`). `troubles` maps a page's number to what is wrong with it."""

    pages: list[list[dict[str, Any]]] = field(default_factory=lambda: [things(*range(n, n + 4)) for n in (0, 4, 8)])
    troubles: dict[int, Trouble] = field(default_factory=dict)

    def reply(self, asked: Asked) -> bytes | list[bytes]:
        """The answer to one request."""
        number = int(dict(asked.query).get("page", 0))
        trouble = self.troubles.get(number)
        answer = trouble(asked) if trouble else None
        return self.page(number) if answer is None else answer

    def page(self, number: int) -> bytes:
        """A page as it should be."""
        following = number + 1 if number + 1 < len(self.pages) else None
        return json_answer({"results": self.pages[number], "next": following})

    @property
    def ids(self) -> list[str]:
        """The ids of everything there is, in order."""
        return sorted(record["id"] for page in self.pages for record in page)


class Shop:
    """A project in a folder, run the way the command and Dagster run it. Every run opens it anew."""

    def __init__(
        self,
        folder: Path,
        api_url: str,
        api: Api,
        warehouse_url: str,
        *,
        stream: dict[str, Any] | None = None,
        warehouse: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.api, self.warehouse_url = folder, api, warehouse_url
        self.environ = {"SHOP_TOKEN": TOKEN, "WAREHOUSE_URL": warehouse_url}
        paging = {"kind": "cursor", "next": "$.next", "into": "query.page"}
        things = {"request": {"path": "/things"}, "records": "$.results", "key": ["id"], "paging": paging, **(stream or {})}
        head = {"muxly": 1, "id": "shop", "version": "1.0.0", "title": "Shop", "hosts": ["127.0.0.1"]}
        self.write("shop.yaml", {**head, "base_url": api_url, "auth": ["bearer"], "streams": {"things": things}})
        project = {
            "sources": {"shop": {"connector": "./shop.yaml", "auth": {"kind": "bearer", "token": "${SHOP_TOKEN}"}, "pulls": ["things"]}},
            "routes": {"out": {"from": PULL, "to": ["warehouse"]}},
            "destinations": {"warehouse": {"type": "database", "url": "${WAREHOUSE_URL}", "mode": "append", **(warehouse or {})}},
        }
        self.write("muxly.yaml", project)

    def write(self, name: str, content: dict[str, Any] | str) -> None:
        """Write one of the project's files."""
        (self.folder / name).write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))

    @property
    def settings(self) -> Settings:
        """Everything in the project's own folder."""
        return Settings.from_environ({"MUXLY_PROJECT": str(self.folder)})

    def open(self) -> Runtime:
        """The project, loaded and checked."""
        return Runtime.open(self.settings, self.environ)

    def run(self, name: str, *, from_start: bool = False) -> Outcome:
        """Run one asset."""
        with self.open() as runtime:
            return runtime.run(name, from_start=from_start)

    def sync(self) -> tuple[Outcome, Outcome]:
        """Pull, then deliver."""
        return self.run(PULL), self.run(TARGET)

    def fails(self, kind: type[MuxlyError], name: str = PULL) -> MuxlyError:
        """Run one asset that has to fail with exactly this kind of error, and to say what to do without a secret."""
        with pytest.raises(MuxlyError) as caught:
            self.run(name)
        assert type(caught.value) is kind, str(caught.value)
        return clear(caught.value)

    def rows(self, query: str = f"select id from {TABLE} order by id") -> list[Any]:
        """The first column of what a query of the warehouse gives."""
        url = self.warehouse_url.replace("postgresql://", "postgresql+psycopg://")
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            found = connection.execute(sa.text(query))
            return list(found.scalars()) if found.returns_rows else []

    def table(self) -> LakeTable:
        """The lake table."""
        with self.open() as runtime:
            return runtime.lake.existing(PULL)

    def quarantine(self) -> list[DeadLetter]:
        """The records that could not be read."""
        with self.open() as runtime:
            return runtime.state.ledger.dead_letters(PULL)

    def is_complete(self) -> bool:
        """Whether a further run of everything leaves each record of the API in the warehouse once, and the counts agree."""
        self.sync()
        assert self.rows() == self.api.ids
        with self.open() as runtime:
            totals = runtime.state.ledger.totals(TARGET)
            assert totals["read"] == totals["accepted"] + totals["refused"] + totals["unrouted"] == runtime.lake.existing(PULL).head
        return True


def clear(error: MuxlyError) -> MuxlyError:
    """The error, if it says what to do and shows no secret."""
    assert "→" in str(error) or "; " in str(error), f"says nothing of what to do: {error}"
    return without_secrets(error)


def without_secrets(error: MuxlyError) -> MuxlyError:
    """The error, if neither it nor its traceback shows a secret."""
    assert TOKEN not in str(error) + repr(error) + "".join(traceback.format_exception(error))
    return error
