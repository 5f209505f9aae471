"""A destination in memory, which misbehaves as it is told."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import PrivateAttr

from muxly_dagster import records
from muxly_dagster.destination import Delivery, Destination, Receipt, Refusal
from muxly_dagster.errors import MuxlyError, RecordRefused, RetryLater
from muxly_dagster.resource import CheckResult


@dataclass(slots=True)
class Memory:
    """What a MemoryDestination took, and how it is to behave."""

    taken: list[dict[str, Any]] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    refuses: Callable[[dict[str, Any]], str | None] | None = None
    batches_only: bool = False
    down: MuxlyError | None = None
    room: int | None = None


class MemoryDestination(Destination):
    """Keeps records in `memory.taken`, in the record form; each record once, however often it is delivered.

    It refuses what `refuse` says, record by record, or as a whole batch where `whole` is set. `go_down` lets every delivery
    fail until `come_up`; with `after_records`, so many records are taken first and confirmed in a receipt for a part.
    """

    type: ClassVar[str] = "memory"
    title: ClassVar[str] = "Memory"

    _memory: Memory = PrivateAttr(default_factory=Memory)

    @property
    def memory(self) -> Memory:
        """What was taken so far."""
        return self._memory

    @property
    def data(self) -> list[dict[str, Any]]:
        """The data of what was taken, in order."""
        return [record["data"] for record in self._memory.taken]

    def refuse(self, reason: Callable[[dict[str, Any]], str | None], *, whole: bool = False) -> None:
        """Refuse the records for which `reason` (asked with the record form) gives one; `whole`: without saying which it was."""
        self._memory.refuses, self._memory.batches_only = reason, whole

    def go_down(self, error: MuxlyError | None = None, *, after_records: int = 0) -> None:
        """Fail from now on, after `after_records` more records."""
        self._memory.down, self._memory.room = error or RetryLater("the memory is away", do="try again"), after_records

    def come_up(self) -> None:
        """Work again."""
        self._memory.down = self._memory.room = None

    def deliver(self, delivery: Delivery) -> Receipt:
        """Take the records into memory."""
        memory = self._memory
        memory.deliveries.append(delivery)
        shown = records.to_records(delivery.rows, connector_id=delivery.connector_id, table=delivery.table, table_id=delivery.table_id)
        reasons = {r["metadata"]["seq"]: reason for r in shown if memory.refuses and (reason := memory.refuses(r))}
        if memory.down and not memory.room:
            raise memory.down
        if reasons and memory.batches_only:
            raise RecordRefused(next(iter(reasons.values())))
        cut = memory.room if memory.down else None
        handled = shown[:cut]
        known = {r["id"] for r in memory.taken}
        memory.taken += [r for r in handled if r["metadata"]["seq"] not in reasons and r["id"] not in known]
        refused = tuple(Refusal(r["metadata"]["seq"], reasons[r["metadata"]["seq"]]) for r in handled if r["metadata"]["seq"] in reasons)
        accepted = len(handled) - len(refused)
        if memory.down and len(handled) < len(shown):
            memory.room = 0
            passing = memory.down if isinstance(memory.down, RetryLater) else None
            return Receipt(accepted, refused, upto=handled[-1]["metadata"]["seq"], retry=passing)
        if memory.room is not None:
            memory.room -= len(handled)
        return Receipt(accepted, refused)

    def check(self) -> CheckResult:
        """Say whether the memory is up."""
        down = self._memory.down
        return CheckResult("failed", "look", down.what, down.do) if down else CheckResult("ok", "look")
