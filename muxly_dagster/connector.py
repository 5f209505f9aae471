"""The contract of a connector: a provider that can be pulled from."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from muxly_dagster.resource import CheckResult, MuxlyResource

Cursor = Any
"""A connector's own position in a stream: any JSON value. Muxly stores it and hands it back, nothing else."""

Contract = Literal["evolve", "freeze", "discard"]


class PullSettings(BaseModel):
    """What every pull may say under `pulls: NAME:`, whatever its connector. Connectors add fields by subclassing."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    stream: str = Field("", description="The connector's stream; the pull's own name unless told otherwise.")
    key: list[str] | None = Field(None, description="Columns that identify a record; the stream's own unless told otherwise.")
    contract: Contract | None = Field(
        None, description="What happens when fields appear or change type: evolve, freeze (fail) or discard (leave them out)."
    )
    description: str = Field("", description="Shown in the Dagster UI.")
    owners: list[str] = Field([], description="E-mail addresses or `team:NAME`, shown in the Dagster UI.")
    group: str = Field("", description="Asset group in the Dagster UI; the source's name unless told otherwise.")
    freshness: str = Field("", description="Warn when the last successful pull is older than this, such as `2h` or `1d`.")
    max_quarantined: float = Field(0.05, ge=0, le=1, description="Share of unreadable records above which the check fails.")


@dataclass(frozen=True, slots=True)
class Stream:
    """One collection a connector offers, as far as it is known without asking the provider.

    `schema` holds the data columns whose types are known beforehand (None: all are inferred). `sync` says how news is
    found: "full" reads everything every time (what is no longer there was deleted), "cursor" reads what came since.
    """

    name: str
    key: tuple[str, ...] = ()
    sync: Literal["full", "cursor"] = "full"
    schema: pa.Schema | None = None
    contract: Contract = "evolve"
    description: str = ""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that could not be read, kept for quarantine: `text` is what came (cut to 64 KiB), `reason` why it failed."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one stream, and the position that becomes safe once they are stored.

    `rows` has plain data columns only (normalised by `records.normalise`). `cursor` None means: not a place to resume from.
    `metadata` (quality flags, coercions) goes into the metadata of every record of the batch.
    """

    rows: pa.Table
    cursor: Cursor | None = None
    unreadable: tuple[Unreadable, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


class Connector(MuxlyResource):
    """A provider with its settings and credentials: fields are the configuration under `sources: NAME:`.

    Subclasses set `id`, `title` and, if pulls have settings of their own, `Pull`. An instance holds no open connection
    between calls and may be used from several threads.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    Pull: ClassVar[type[PullSettings]] = PullSettings

    @abstractmethod
    def stream(self, pull: PullSettings) -> Stream:
        """Describe the stream a pull reads, without touching the network. Raises ConfigurationError for an unknown one."""

    def resolve(self, pull: PullSettings) -> Stream:
        """The stream with what only the provider knows (a table's key and types). Called once before a pull."""
        return self.stream(pull)

    @abstractmethod
    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Read the stream's news since `cursor` (None: from the start).

        `known` is the lake table's data schema so far: read values into those types where they fit. Ending without an
        exception says that everything was read. Raises SignInError, RetryLater, SourceError.
        """

    @abstractmethod
    def test_connection(self) -> CheckResult:
        """Try the credentials with the cheapest request there is. Never raises for a refusal: it says so."""

    def streams(self) -> list[Stream]:
        """Streams found by asking the provider; those known from the declaration where it cannot be asked."""
        return []
