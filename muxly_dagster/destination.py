"""The contract of a destination: a place that takes records and answers with a receipt."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from muxly_dagster.errors import RetryLater
from muxly_dagster.resource import CheckResult, MuxlyResource


@dataclass(frozen=True, slots=True)
class Delivery:
    """A stretch of one table's changes on its way to one destination.

    `rows` are the routed changes with seq in (`after`, `upto`], ordered by seq: data columns and the `_muxly_` columns of
    `records`. A key may occur more than once; the last one wins. `id` names the route and destination ("big_deals/warehouse");
    together with `table_id` and the two offsets it is the same in every repetition, so names and transactions derived from it are
    idempotent. `connector_id` is what the table was pulled with ("hubspot"; "transform" for a transform's table).
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


@dataclass(frozen=True, slots=True)
class Refusal:
    """One record that the destination will never take: its `_muxly_seq` and the reason in the destination's words."""

    seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a destination did with a delivery; `detail` is JSON for people.

    Every row is accepted or in `refused`. A destination that was interrupted answers for the rows up to `upto` (a seq;
    None: all of them) and says in `retry` why it stopped there, so that what it confirmed is not sent again.
    """

    accepted: int
    refused: tuple[Refusal, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)
    upto: int | None = None
    retry: RetryLater | None = None


class Destination(MuxlyResource):
    """A place that takes records: fields are the configuration under `destinations: NAME:`.

    Subclasses set `type` and `title`. `batch_rows` is the most rows one delivery carries; `public_name` is the table, file
    or address that a delivery ends in, for people and for Dagster's `dagster/table_name`.
    """

    type: ClassVar[str]
    title: ClassVar[str]
    batch_rows: ClassVar[int] = 50_000
    keeps_offset: ClassVar[bool] = False
    """Whether `position` always knows, once rows were taken: a destination that then answers None is a new one, and gets everything."""

    @abstractmethod
    def deliver(self, delivery: Delivery) -> Receipt:
        """Take the rows, all or nothing per record, safely repeatable.

        Raises RecordRefused when the destination refuses the batch without saying which record (the road then halves it;
        nothing of the refused batch may have been kept), RetryLater when trying again can help, SignInError and
        ConfigurationError when a person must act.
        """

    @abstractmethod
    def test_connection(self) -> CheckResult:
        """Try the destination without leaving anything behind. Never raises for a refusal: it says so."""

    def position(self, delivery_id: str, table_id: str) -> int | None:
        """The last seq this destination knows it has taken, where it stores offsets with the rows; else None."""
        return None

    def rewind(self, delivery_id: str, table_id: str, seq: int) -> None:
        """Set back the offset that is stored with the rows, where there is one, so that what came after `seq` is taken again."""
        return None

    def public_name(self, table: str) -> str:
        """Where rows of the lake table `table` end up, in the destination's own terms."""
        return table
