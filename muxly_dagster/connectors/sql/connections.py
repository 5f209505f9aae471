"""The connections of one pull: opened, opened again after they broke, interrupted and closed together."""

import threading
from collections.abc import Callable
from typing import Self

from muxly_dagster.connectors.sql.dialect import Database
from muxly_dagster.errors import RetryLater


class Connections:
    """Several connections that see one state of the data, as far as the database lets them. Used by several threads."""

    def __init__(self, connect: Callable[[], Database]) -> None:
        self._connect = connect
        self._open: list[Database] = []
        self._lock = threading.Lock()
        self._left = threading.Event()
        self._snapshot = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for database in self._open:
            database.close()

    def open(self) -> Database:
        """One more connection."""
        database = self._connect()
        with self._lock:
            self._open.append(database)
        return database

    def beside(self, database: Database, count: int) -> list[Database]:
        """So many more connections that see what this one sees; none where the database cannot do that."""
        self._snapshot = database.snapshot() if count else ""
        more = [self.open() for _ in range(count)] if self._snapshot else []
        for other in more:
            other.join(self._snapshot)
        return more

    def reopen(self, broken: Database, wait: float) -> Database:
        """A connection in place of one that broke, after so many seconds. It sees the present state where the common one is lost."""
        with self._lock:
            if broken in self._open:
                self._open.remove(broken)
        broken.close()
        if self._left.wait(wait):
            raise RetryLater("the pull was left")
        database = self.open()
        if self._snapshot:
            database.join(self._snapshot)
        return database

    @property
    def left(self) -> bool:
        """Whether nobody wants any more of it."""
        return self._left.is_set()

    def interrupt(self) -> None:
        """End every read that is under way, with an error there; nothing is opened any more."""
        self._left.set()
        with self._lock:
            for database in self._open:
                database.interrupt()
