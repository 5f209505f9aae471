"""The contract of a destination: a place that takes records and answers with a receipt."""

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import Field, PrivateAttr

from muxly_dagster import fragment, records
from muxly_dagster.errors import RetryLater
from muxly_dagster.measures import Duration, Share
from muxly_dagster.policy import Batching, Breaker, Dedupe, Guard, OnError, Window
from muxly_dagster.resource import CheckResult, MuxlyResource
from muxly_dagster.services import Services

Guarantee = Literal["exactly once", "at least once, with the same id", "at least once", "at most once"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A stretch of one table's changes on its way to one destination.

    `rows` are the routed changes with seq in (`after`, `upto`], ordered by seq: data columns and the `_muxly_` columns of
    `records`. A key may occur more than once; the last one wins. `id` names the route and destination ("big_deals/warehouse");
    together with `table_id` and the two offsets it is the same in every repetition, so names and transactions derived from it are
    idempotent. `connector_id` is what the table was pulled with ("hubspot"; "transform" for a transform's table).

    `rules` names, for each row, the rule that sent it here; empty where the route has none. `templates` are what a rule says in place of
    the destination's own templates, by the rule's name and the field ({"big": {"text": "..."}}).
    """

    id: str
    table: str
    table_id: str
    key: tuple[str, ...]
    rows: pa.Table
    after: int
    upto: int
    connector_id: str = ""
    run_id: str = ""
    rules: Sequence[str] = ()
    templates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def records(self, start: int = 0, count: int | None = None) -> list[dict[str, Any]]:
        """Rows in the record form, `count` of them from row number `start` (from 0)."""
        rows = self.rows.slice(start, count)
        return records.to_records(rows, connector_id=self.connector_id, table=self.table, table_id=self.table_id)

    def rule_of(self, row: int) -> str:
        """The name of the rule that sent a row (from 0) here; empty where there is none."""
        return self.rules[row] if self.rules else ""

    def template_of(self, row: int, name: str, otherwise: Any) -> Any:
        """What the field `name` says for a row: the rule's own template where it has one."""
        return self.templates.get(self.rule_of(row), {}).get(name, otherwise)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One record that the destination will never take: its `_muxly_seq` and the reason in the destination's words."""

    seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a destination did with a delivery; `detail` is JSON for people.

    Every row is accepted or in `refused`. A destination that was interrupted answers for the rows up to `upto` (a seq;
    None: all of them) and says in `retry` why it stopped there, so that what it confirmed is not sent again. `ahead` are the seqs
    beyond `upto` that it accepted all the same, as happens where several requests are under way: they are not sent again either.
    """

    accepted: int
    refused: tuple[Refusal, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)
    upto: int | None = None
    retry: RetryLater | None = None
    ahead: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a delivery would do, in rows. `notes` are for people: a table that would be made, a column that would be added."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    refused: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """What a person or program would get to see of some rows: their seqs, and the message as text."""

    seqs: tuple[int, ...]
    text: str


class Destination(MuxlyResource):
    """A place that takes records: fields are the configuration under `destinations: NAME:`.

    Subclasses set `type`, `title` and `guarantee`. `batch_rows` is the most rows one delivery carries; `public_name` is the table, file
    or address that a delivery ends in, for people and for Dagster's `dagster/table_name`. The fields below are every destination's:
    the road reads them, destinations do not.
    """

    type: ClassVar[str]
    title: ClassVar[str]
    batch_rows: ClassVar[int] = 50_000
    guarantee: ClassVar[Guarantee] = "at least once, with the same id"
    """What a receiver can rely on when a process is killed in the middle of a delivery."""

    keeps_offset: ClassVar[bool] = False
    """Whether `position` always knows, once rows were taken: a destination that then answers None is a new one, and gets everything."""

    bulk: ClassVar[bool] = False
    """Whether it holds whole tables, so that it also serves as a Dagster IO manager for people's own assets."""

    templates: ClassVar[tuple[str, ...]] = ()
    """The fields that are templates of messages, which a rule may say anew for its own records."""

    example: ClassVar[Mapping[str, Any]] = {}
    """What `config_template` shows beyond the required fields: values for fields by name."""

    on_error: OnError = Field(
        "retry",
        description="retry: what fails waits and is tried again; a refused record is shelved as a dead letter, the rest goes on. "
        "dead_letter: what still fails after a run's attempts is shelved too. stop: a refused record stops the delivery right before it.",
    )
    batching: Batching = Field(
        Batching(), description="How many changes go at a time, and whether they wait for more.", examples=[{"count": 500, "age": "15m"}]
    )
    window: Window | None = Field(
        None,
        description="The hours in which there are deliveries; without it, always.",
        examples=[{"days": "mon-fri", "from": "09:00", "to": "17:00", "timezone": "Europe/Berlin"}],
    )
    dedupe: Dedupe | None = Field(
        None, description="Hold back records like those delivered a short while ago.", examples=[{"within": "1h", "by": ["customer"]}]
    )
    guard: Guard = Field(Guard(), description="Stop a run that would delete or change too much.")
    breaker: Breaker = Field(Breaker(), description="Leave a destination alone for a while after deliveries that failed.")
    max_lag: Duration = Field("", description="Warn when a change has waited longer than this, such as `1h`.")
    max_refused: Share = Field("0%", description="Warn when a larger share of the records of a run is refused.")

    _services: Services = PrivateAttr(default_factory=Services)

    @property
    def services(self) -> Services:
        """What the runtime lends: by default, things that live as long as this object."""
        return self._services

    def equipped(self, services: Services) -> Self:
        """The same destination with these services."""
        equipped = self.model_copy()
        equipped._services = services
        return equipped

    @classmethod
    def config_template(cls, name: str) -> str:
        """A muxly.yaml with one destination of this name, its settings commented, its secrets environment variables (`${NAME_URL}`)."""
        everybodys = Destination.model_fields
        lines = fragment.setting("type", cls.type)
        lines += fragment.model_lines(cls, variables=name, shown=cls.example, without=everybodys)
        shared = fragment.model_lines(Destination, variables=name)
        lines += fragment.comment("What every destination may say:") + shared
        return "\n".join(["destinations:", f"  {name}:", *fragment.indented(lines, 4)]) + "\n"

    @abstractmethod
    def deliver(self, delivery: Delivery) -> Receipt:
        """Take the rows, all or nothing per record, safely repeatable.

        Raises RecordRefused when the destination refuses the batch without saying which record (the road then halves it;
        nothing of the refused batch may have been kept), RetryLater when trying again can help, GoneError when the place is gone for
        good, SignInError and ConfigurationError when a person must act.
        """

    @abstractmethod
    def check(self) -> CheckResult:
        """Try the destination without leaving anything behind. Never raises for a refusal: it says so."""

    def position(self, delivery_id: str, table_id: str) -> int | None:
        """The last seq this destination knows it has taken, where it stores offsets with the rows; else None."""
        return None

    def rewind(self, delivery_id: str, table_id: str, seq: int) -> None:
        """Set back the offset that is stored with the rows, where there is one, so that what came after `seq` is taken again."""
        return None

    def plan(self, delivery: Delivery) -> Plan | None:
        """What delivering these rows would do, with nothing changed; None where the destination itself does not know.

        Errors as of `deliver`; RecordRefused, too, when it would refuse the batch without saying which record.
        """
        return None

    def render(self, delivery: Delivery) -> Sequence[Message]:
        """What would be sent for these rows, as people would see it; empty where it is the record itself."""
        return ()

    @property
    def passes_deletes(self) -> bool:
        """Whether what the source deleted is deleted here too, so that the guard has to look."""
        return False

    @property
    def one_row_per_key(self) -> bool:
        """Whether the newest change of a key takes the place of the earlier ones, so that only it counts in a plan."""
        return False

    def public_name(self, table: str) -> str:
        """Where rows of the lake table `table` end up, in the destination's own terms."""
        return table
