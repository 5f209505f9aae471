"""The contract of a connector: a provider that can be pulled from."""

import datetime as dt
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from muxly_dagster import fragment
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.resource import CheckResult, MuxlyResource
from muxly_dagster.services import Services

Cursor = Any
"""A connector's own position in a stream: any JSON value. Muxly stores it and hands it back, nothing else."""

Contract = Literal["evolve", "freeze", "discard"]

Sync = Literal["full", "cursor", "delta"]


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
    found: "full" reads everything every time (what is no longer there was deleted), "cursor" reads what came since, "delta"
    reads what the provider says has changed or was deleted. `deletes` says whether a "cursor" or "delta" pull hears of deletions.
    """

    name: str
    key: tuple[str, ...] = ()
    sync: Sync = "full"
    schema: pa.Schema | None = None
    contract: Contract = "evolve"
    description: str = ""
    deletes: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a stream: the records whose `column` lies in [start, end), None being open; all of them where there is no column.

    The bounds are values of the column's type in the lake.
    """

    column: str = ""
    start: Any = None
    end: Any = None


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

    What was deleted at the provider is said in one of three ways; each becomes a delete with the record's last values, before
    the batch's cursor counts. `deletes` holds the key columns of records that are gone, and counts after the rows of its batch;
    keys that the lake does not have are passed over. `cleared` are spans of which every record is gone, and counts before
    the rows (a folder with all that was in it). `complete` are spans of which this pull has now given every record there is: what
    else the lake holds there is gone. Where a record of this pull could not be read, nothing is cut, and if something might be gone, no
    cursor of this pull counts from there on: the next pull comes to the same place. Each span costs a scan of the table. `alive` holds
    the key columns of records that exist though their rows are not given: to `complete` they are as good as given.
    """

    rows: pa.Table
    cursor: Cursor | None = None
    unreadable: tuple[Unreadable, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    deletes: pa.Table | None = None
    alive: pa.Table | None = None
    cleared: tuple[Span, ...] = ()
    complete: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a connector knows of the account it is signed in to. `limits` are in words ("100 requests per 10 s").

    `sunset` is the day the API version ends, where it is announced; `details` is whatever else helps (a plan, a time zone).
    """

    account: str = ""
    api_version: str = ""
    sunset: dt.date | None = None
    limits: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Action:
    """Something a connector can do at the provider besides being read, such as sending a mail. `inputs` is a JSON Schema of an object."""

    name: str
    title: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selected:
    """Something that a source's patterns select: its name at the provider ("crm.Orders") and what would stand under `pulls: NAME:`.

    `short` is what the pull is named after. `names` are all names that a pull written out may call it by.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    short: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is known of a connector before anybody has signed in: for people, templates and documentation pages.

    `metadata` has no account then; `docs` is the address of the provider's own documentation. `syncs` are the ways to find news where the
    streams are not known beforehand.
    """

    streams: tuple[Stream, ...] = ()
    syncs: tuple[Sync, ...] = ()
    actions: tuple[Action, ...] = ()
    metadata: Metadata = field(default_factory=Metadata)
    description: str = ""
    docs: str = ""


class Connector(MuxlyResource):
    """A provider with its settings and credentials: fields are the configuration under `sources: NAME:`.

    Subclasses set `id`, `title` and, if pulls have settings of their own, `Pull`. An instance holds no open connection
    between calls and may be used from several threads. What it needs of its surroundings (rate budgets shared between processes, a
    place for files) it takes from `services`.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    Pull: ClassVar[type[PullSettings]] = PullSettings
    example: ClassVar[Mapping[str, Any]] = {}
    """What `config_template` shows beyond the required fields: values for fields by name, and the `pulls` to begin with."""

    reads_state: ClassVar[bool] = False
    """Whether what it pulls came in by HTTP and waits in Muxly's own state, so that only an open project can look at it."""

    _services: Services = PrivateAttr(default_factory=Services)

    @property
    def services(self) -> Services:
        """What the runtime lends: by default, things that live as long as this object."""
        return self._services

    @classmethod
    def declaration(cls) -> Declaration:
        """What there is to know without settings: streams and actions that every account has, limits, the API's version."""
        return Declaration()

    @classmethod
    def config_template(cls, name: str, connector: str = "") -> str:
        """A muxly.yaml with one source of this name, its settings commented, its secrets environment variables (`${NAME_TOKEN}`).

        `connector` is how the project names the connector: its id unless told otherwise, or a manifest's path.
        """
        shown = {setting: value for setting, value in cls.example.items() if setting != "pulls"}
        lines = fragment.setting("connector", connector or cls.id)
        lines += fragment.model_lines(cls, variables=name, shown=shown)
        lines += ["pulls:", *fragment.indented(_pull_lines(cls))]
        return "\n".join(["sources:", f"  {name}:", *fragment.indented(lines, 4)]) + "\n"

    def equipped(self, services: Services) -> Self:
        """The same connector with these services."""
        equipped = self.model_copy()
        equipped._services = services
        return equipped

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

    def stored(self, pull: PullSettings, cursor: Cursor) -> None:
        """Hear that everything up to this cursor is in the lake for good, so that a queue may let go of it.

        Called on the way of a pull, with cursors that its batches gave. A process may die before it is called: the next pull begins with
        that cursor all the same.
        """

    @abstractmethod
    def test_connection(self) -> CheckResult:
        """Try the credentials with the cheapest request there is. Never raises for a refusal: it says so."""

    def streams(self) -> list[Stream]:
        """Streams found by asking the provider; those known from the declaration where it cannot be asked.

        Raises SignInError, RetryLater, SourceError.
        """
        return []

    def metadata(self) -> Metadata:
        """The account, API version and limits, found by asking the provider where it takes that. Errors as in `streams`."""
        return Metadata()

    def selection(self) -> Mapping[str, Any] | None:
        """The settings that `selected` goes by, as JSON values without any secret, where the source has patterns; None where it has none.

        What was selected is kept for as long as they stay the same.
        """
        return None

    def selected(self) -> Sequence[Selected]:
        """What the source's patterns select, found by asking the provider; each becomes a pull of the project.

        Asked only where there is a `selection`. Raises ConfigurationError for patterns that select nothing; other errors as in `streams`.
        """
        return ()

    @classmethod
    def reads(cls, name: str, pull: Mapping[str, Any]) -> str:
        """What a pull that is written out reads, by its name at the provider; empty where that is nothing that can be selected."""
        return str(pull.get("stream") or name)

    def check_pull(self, pull: PullSettings) -> Sequence[str]:
        """What the provider finds wrong with a pull's settings, in words, without reading any record; `muxly check` asks. Never raises
        for a refusal."""
        return ()

    def preview_notes(self, pull: PullSettings) -> Sequence[str]:
        """What is worth knowing before a pull runs, in words, such as its cost; `muxly preview` shows it. Raises as `pull` does."""
        return ()

    def actions(self) -> Sequence[Action]:
        """What can be done at the provider besides reading."""
        return ()

    def act(self, action: str, inputs: Mapping[str, Any]) -> Any:
        """Do it, and give the provider's answer as JSON values. Raises ConfigurationError for an unknown action or wrong inputs."""
        raise ConfigurationError(f"{self.id} has no action {action!r}", do="see `muxly connectors show`")


_MOST_PULLS = 8


def _pull_lines(kind: type[Connector]) -> list[str]:
    """The pulls that a template begins with: the connector's example, or else its first streams; in comments, what more there is."""
    streams = {stream.name: stream for stream in kind.declaration().streams}
    example: Any = kind.example.get("pulls") or list(streams)[:_MOST_PULLS]
    pulls: dict[str, Any] = dict(example) if isinstance(example, Mapping) else {name: {} for name in example}
    lines: list[str] = []
    for name, settings in pulls.items():
        stream = streams.get((settings or {}).get("stream") or name)
        lines += fragment.comment(stream.description if stream else "")
        lines += fragment.setting(name, settings or {})
    taken = {(settings or {}).get("stream") or name for name, settings in pulls.items()}
    more = [name for name in streams if name not in taken]
    if more:
        lines += fragment.comment(f"There are also {', '.join(more)}.")
    own = {info.alias or name: info for name, info in kind.Pull.model_fields.items() if name not in PullSettings.model_fields}
    if own:
        lines += fragment.comment("A pull may also say:")
        for name, info in own.items():
            first, *others = fragment.comment(f"{name}: {info.description or ''}")
            lines += [first.replace("# ", "# - ", 1), *(line.replace("# ", "#   ", 1) for line in others)]
    return lines
