"""The collector connector: what the company's own services post to the API, from the inbox into the lake.

An event that the API has acknowledged waits in the inbox. A pull reads what waits, and lets go of it once it is in the lake for good.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import BeforeValidator, Field

from muxly_dagster.connector import Batch, Connector, Cursor, Declaration, PullSettings, Stream
from muxly_dagster.connectors.collector.json_schema import read_schema
from muxly_dagster.connectors.collector.reading import COLUMNS, Position, read
from muxly_dagster.project_paths import InProject
from muxly_dagster.resource import CheckResult


class CollectorPull(PullSettings):
    """How the events of one stream are told apart, and what they must look like."""

    id: str = Field("id", description="The field that holds the sender's id of an event, by which a repetition is known; empty for none.")
    json_schema: Annotated[dict[str, Any] | None, InProject(), BeforeValidator(read_schema)] = Field(
        None, description="A JSON Schema that events must meet, or the path of a file that holds one; what fails goes to quarantine."
    )


class Collector(Connector):
    """Events that are posted to `/v1/collect/SOURCE/STREAM` and the API's other ways in."""

    id: ClassVar[str] = "collector"
    title: ClassVar[str] = "Collector (what your own services post)"
    Pull: ClassVar[type[PullSettings]] = CollectorPull
    example: ClassVar[Mapping[str, Any]] = {"pulls": {"signups": {}}}
    reads_state: ClassVar[bool] = True

    automatic: bool = Field(
        True, description="Whether a pull and all that follows from it run as soon as events wait; otherwise they run with jobs."
    )

    @classmethod
    def declaration(cls) -> Declaration:
        """Which streams there are, the project says: a stream exists once a pull reads it."""
        return Declaration(syncs=("cursor",), description="Takes what your own services post to Muxly's API.")

    def stream(self, pull: PullSettings) -> Stream:
        """The stream as declared. A closed contract begins with what the first events hold, so nothing is declared for it."""
        schema = COLUMNS if pull.contract in (None, "evolve") else None
        return Stream(pull.stream, key=tuple(pull.key or ()), sync="cursor", schema=schema, description=f"Events posted as {pull.stream}.")

    def streams(self) -> list[Stream]:
        """The streams of this source of which events wait."""
        return [Stream(name, sync="cursor", schema=COLUMNS) for name in self.waiting()]

    def test_connection(self) -> CheckResult:
        """Say how many events wait, and of which streams."""
        waiting = self.waiting()
        streams = ", ".join(f"{name} {count:,}" for name, count in waiting.items())
        count = sum(waiting.values())
        told = f"{count:,} {'event waits' if count == 1 else 'events wait'}" + (f" ({streams})" if streams else "")
        return CheckResult("ok", "look into the inbox", told)

    def waiting(self) -> Mapping[str, int]:
        """How many events wait, by stream. Raises RetryLater where the inbox cannot be read."""
        return self.services.inbox.waiting(self.services.source)

    def preview_notes(self, pull: PullSettings) -> Sequence[str]:
        """How many events wait: a preview leaves them there."""
        return (f"{self.waiting().get(pull.stream, 0):,} events wait; what is in the lake already is not shown",)

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Read what waits. Raises RetryLater where the inbox cannot be read."""
        yield from read(self.services.inbox, self.services.source, pull.stream, Position.of(cursor), known)

    def stored(self, pull: PullSettings, cursor: Cursor) -> None:
        """Let go of what is in the lake."""
        self.services.inbox.let_go(self.services.source, pull.stream, Position.of(cursor).seq)
