"""A connector that plays back batches, for tests of the road."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import PrivateAttr

from muxly_dagster import records
from muxly_dagster.assembly import Pull
from muxly_dagster.connector import Batch, Connector, Cursor, PullSettings, Stream
from muxly_dagster.resource import CheckResult

Script = Callable[[Cursor | None], Iterator[Batch]]


class Scripted(Connector):
    """Plays what it was given; remembers the cursors it was asked to go on from."""

    id: ClassVar[str] = "scripted"
    title: ClassVar[str] = "Scripted"
    _scripts: list[Script] = PrivateAttr(default_factory=list)
    _streams: list[Stream] = PrivateAttr(default_factory=list)
    _asked: list[Any] = PrivateAttr(default_factory=list)

    def stream(self, pull: PullSettings) -> Stream:
        return self._streams[0]

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        self._asked.append(cursor)
        yield from self._scripts[0](cursor)

    def test_connection(self) -> CheckResult:
        return CheckResult("ok", "nothing")


def scripted(script: Script, stream: Stream | None = None, **settings: Any) -> Pull:
    """A pull `crm.things` that plays the script."""
    connector = Scripted()
    connector._scripts.append(script)
    connector._streams.append(stream or Stream("things", ("id",)))
    return Pull("crm.things", "crm", connector, PullSettings(**settings), connector._streams[0])


def asked(pull: Pull) -> list[Any]:
    """The cursors that the pull's connector was given, run by run."""
    assert isinstance(pull.connector, Scripted)
    return pull.connector._asked


def rows(*values: dict[str, Any]) -> pa.Table:
    """Rows in the lake's types."""
    return records.normalise(pa.Table.from_pylist(list(values)))


def batches(*tables: pa.Table, cursors: bool = False) -> Script:
    """A script of batches; with cursors, each batch ends at its number, and a run goes on behind the cursor."""

    def play(cursor: Cursor | None) -> Iterator[Batch]:
        for number, table in enumerate(tables, 1):
            if cursor is None or number > cursor:
                yield Batch(table, cursor=number if cursors else None)

    return play
