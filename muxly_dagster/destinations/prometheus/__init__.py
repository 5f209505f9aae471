"""The `prometheus` destination: metrics made of records, to be scraped, written to a receiver, or pushed to a Pushgateway.

Values are kept in Muxly's state. Which changes are in them, and the offset, are written in the transaction that writes the values, so
nothing is counted twice, whatever is repeated.
"""

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, field_validator, model_validator

from muxly_dagster.auth import Auth, NoAuth
from muxly_dagster.destination import Delivery, Destination, Guarantee, Message, Plan, Receipt, Refusal
from muxly_dagster.destinations.prometheus import exposing, pushing, writing
from muxly_dagster.destinations.prometheus.accumulating import Added, Policy, add, confirm, prepare
from muxly_dagster.destinations.prometheus.metric import Metric, clash
from muxly_dagster.destinations.prometheus.observing import Row, observe
from muxly_dagster.destinations.prometheus.receiver import Receiver, advice
from muxly_dagster.errors import MuxlyError
from muxly_dagster.http import Retries
from muxly_dagster.resource import CheckResult
from muxly_dagster.services import MetricBook, Series

__all__ = ["Metric", "Prometheus"]

_AHEAD_SECONDS = 600.0
"""So much later than its own clock a Prometheus lets a sample be (`maxAheadTime` of its write handler)."""


class _NothingIsKept(Exception):
    """Leaves a transaction whose writes were only tried."""


class Prometheus(Destination):
    """Gauges, counters, histograms and summaries made of records."""

    type: ClassVar[str] = "prometheus"
    title: ClassVar[str] = "Prometheus"
    guarantee: ClassVar[Guarantee] = "exactly once"
    batch_rows: ClassVar[int] = 20_000
    keeps_offset: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"metrics": [{"name": "orders", "type": "counter", "help": "Orders so far."}]}

    # An address may hold a password: pydantic must not quote it.
    model_config = ConfigDict(hide_input_in_errors=True)

    metrics: tuple[Metric, ...] = Field(min_length=1, description="The metrics, and the columns they are made of.")
    mode: Literal["exposition", "remote_write", "pushgateway"] = Field(
        "exposition",
        description="exposition: `muxly serve metrics` shows the values to whoever scrapes them. remote_write: samples are written to "
        "`url`. pushgateway: the values are pushed to the Pushgateway at `url`.",
    )
    timestamp: str = Field(
        "", description="The column that says when a record's values held; the time when Muxly read it unless told otherwise."
    )
    deletes: bool = Field(True, description="End the gauge series of records that the source deleted.")
    max_series: int = Field(1_000, ge=1, description="Most combinations of label values of one metric of one route; more are refused.")
    url: SecretStr | None = Field(
        None,
        description="Where samples are written (`https://prometheus.example/api/v1/write`), or the Pushgateway's address.",
        examples=["https://prometheus.example/api/v1/write"],
    )
    auth: Auth = Field(NoAuth(), description="How to sign in at `url`.")
    headers: dict[str, SecretStr] = Field({}, description="Headers to send along to `url`.")
    job: str = Field("muxly", min_length=1, description="The label `job` of all series at `url`; `instance` is the delivery's name.")
    grouping: dict[str, str] = Field({}, description="More labels of all series at `url`: for a Pushgateway, of the group.")
    protocol: Literal["auto", "2.0", "1.0"] = Field(
        "auto", description="The version of remote write; auto: 2.0, and 1.0 where the receiver does not understand it."
    )
    method: Literal["PUT", "POST"] = Field(
        "PUT", description="Pushgateway only. PUT: the group becomes the values. POST: metrics that are no longer there are left in it."
    )
    batch: int = Field(2_000, ge=1, le=100_000, description="remote_write only: most samples in a request.")
    timeout: float = Field(30.0, gt=0, description="Seconds to wait for an answer.")
    retries: Retries = Field(Retries(attempts=4, cap=15.0), description="How a passing trouble (429, 5xx, no connection) is met.")

    _spoken: dict[str, writing.Version] = PrivateAttr(default_factory=dict)

    @field_validator("url")
    @classmethod
    def _http_address(cls, url: SecretStr | None) -> SecretStr | None:
        parts = urlsplit(url.get_secret_value()) if url is not None else None
        if parts is not None and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("the address must start with https:// or http:// and name a host")
        return url

    @field_validator("headers")
    @classmethod
    def _free_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        if taken := sorted(name for name in headers if name.lower() in writing.RESERVED):
            raise ValueError(f"the protocol itself sets {taken[0]}; leave it out")
        return headers

    @field_validator("grouping")
    @classmethod
    def _group_labels(cls, grouping: dict[str, str]) -> dict[str, str]:
        Metric(name="grouping", type="gauge", fixed=grouping)  # says what is wrong with a name
        if taken := {"job", "instance"} & grouping.keys():
            raise ValueError(f"{min(taken)} is set by `job` and by the delivery's name; leave it out")
        return grouping

    @model_validator(mode="after")
    def _consistent(self) -> "Prometheus":
        if problem := clash(self.metrics):
            raise ValueError(problem)
        if self.mode == "exposition" and self.url is not None:
            raise ValueError("`mode: exposition` is scraped and sends nothing; leave `url` out, or set `mode: remote_write`")
        if self.mode != "exposition" and self.url is None:
            raise ValueError(f"`mode: {self.mode}` needs `url`, the address to send to")
        for metric in self.metrics if self.mode != "exposition" else ():
            if taken := {"job", "instance", *self.grouping} & {*metric.labels, *metric.fixed}:
                raise ValueError(f"the label {min(taken)} of {metric.name} is one that all series have here; take another name")
        return self

    # ---- delivering ------------------------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> Receipt:
        """Add the rows to the values, then tell the receiver where there is one; a record that no metric can take is refused."""
        rows = self._observed(delivery)
        if self.mode == "remote_write":
            return self._write(delivery, rows)
        with self._book(delivery.id) as book:
            prepare(book, self.metrics, delivery.table_id, self._policy)
            added = add(book, self.metrics, rows, self._policy)
            if self.mode == "exposition":
                _move(book, delivery, added.refused)
            series = book.series() if self.mode == "pushgateway" else []
        detail = _detail(added)
        if self.mode == "pushgateway":
            with self._receiver.client() as http:
                group = self._shared(delivery.id)
                detail["status"] = pushing.push(self._receiver, http, self.method, group, self._text(series))
            with self._book(delivery.id) as book:
                _move(book, delivery, added.refused)
        return _receipt(delivery, added.refused, detail)

    def _write(self, delivery: Delivery, rows: Sequence[Row]) -> Receipt:
        with self._book(delivery.id) as book:
            prepare(book, self.metrics, delivery.table_id, self._policy)
            added = add(book, self.metrics, rows, self._policy)
            planned, sent = writing.plan(book, self.metrics, rows, added, timed=bool(self.timestamp))
        sender = writing.Sender(
            self._receiver,
            {metric.family: metric for metric in self.metrics},
            self._shared(delivery.id),
            self.batch,
            None if self.protocol == "auto" else self.protocol,
            self._spoken.get("version", "2.0"),
        )
        with self._receiver.client() as http:
            written = sender.send(http, planned)
        self._spoken["version"] = sender.spoken
        refused = added.refused | written.refused
        with self._book(delivery.id) as book:
            confirm(book, sent, [(family, seq) for family, seq in added.unmarked if seq not in refused])
            _move(book, delivery, refused)
        said = {"protocol": written.version, "requests": written.requests, "samples_written": written.samples}
        if written.unwanted_ends:
            said["series_whose_end_was_refused"] = written.unwanted_ends
        return _receipt(delivery, refused, _detail(added) | said)

    def position(self, delivery_id: str, table_id: str) -> int | None:
        """The seq stored with the values; None before the first delivery."""
        with self._book(delivery_id) as book:
            held = book.held()
        return held[1] if held and held[0] == table_id else None

    def rewind(self, delivery_id: str, table_id: str, seq: int) -> None:
        """Take again what came after `seq`. The values stay: what is in them is not counted a second time, what is not is added."""
        with self._book(delivery_id) as book:
            held = book.held()
            if held and held[0] == table_id and held[1] is not None:
                book.move(table_id, min(seq, held[1]) or None)

    # ---- looking ---------------------------------------------------------------------------------------------------

    def plan(self, delivery: Delivery) -> Plan:
        """Rows that would change values, end series, or be refused; tried in a transaction that is not kept."""
        rows = self._observed(delivery)
        added, _ = self._tried(delivery, rows)
        ending = {row.seq for row in rows if row.seq in added.changed and any(each and each.ends for each in row.observations)}
        notes = (f"{added.made:,} series would be new",) if added.made else ()
        return Plan(updated=len(added.changed - ending), deleted=len(ending), refused=len(added.refused), notes=notes)

    def render(self, delivery: Delivery) -> Sequence[Message]:
        """The series that these rows would change, as text."""
        rows = self._observed(delivery)
        added, series = self._tried(delivery, rows)
        said = [row.observations for row in rows if row.seq in added.changed]
        names = [metric.family for metric in self.metrics]
        touched = {(name, each.labels) for seen in said for name, each in zip(names, seen, strict=True) if each is not None}
        text = self._text([each for each in series if (each.metric, each.labels) in touched]).decode()
        return [Message(tuple(sorted(added.changed)), text)] if text else []

    def check(self) -> CheckResult:
        """Try the receiver with nothing to write. Where values are scraped there is nobody to ask."""
        if self.mode == "exposition":
            return CheckResult("ok", "nothing to ask", "`muxly serve metrics` shows the values at /metrics")
        try:
            tried, what = self._checked()
        except MuxlyError as error:
            return CheckResult("failed", f"ask {self._receiver.host}", error.what, advice(error))
        return CheckResult("ok", tried, what)

    def _checked(self) -> tuple[str, str]:
        receiver = self._receiver
        with receiver.client() as http:
            if self.mode == "pushgateway":
                response = receiver.ask(http, "GET", f"{receiver.address.rstrip('/')}/-/ready")
            else:
                content = writing.compressed(b"")
                response = receiver.ask(http, "POST", receiver.address, content=content, headers=writing.headers("1.0"))
        return f"{response.request.method} {receiver.host}", f"answered {response.reason}; nothing was written"

    @property
    def passes_deletes(self) -> bool:
        """Where a gauge ends with its record."""
        return self.deletes and any(metric.type == "gauge" for metric in self.metrics)

    def public_name(self, table: str) -> str:
        """The names of the metrics."""
        return ", ".join(metric.family for metric in self.metrics)

    def shown(self, name: str, delivery_id: str) -> exposing.Part:
        """What a delivery's values are now, for whoever shows them; series that are not made as the metrics say are left out."""
        with self._book(delivery_id) as book:
            defined = book.definitions()
            current = {metric.family for metric in self.metrics if defined.get(metric.family) == metric.definition}
            return exposing.Part(name, self.metrics, [series for series in book.series() if series.metric in current])

    # ---- private ---------------------------------------------------------------------------------------------------

    @property
    def _policy(self) -> Policy:
        return Policy(self.max_series, timed=bool(self.timestamp), told=self.mode == "remote_write")

    @property
    def _receiver(self) -> Receiver:
        return Receiver(self.url or SecretStr(""), self.auth, self.headers, self.timeout, self.retries)

    def _book(self, delivery_id: str) -> contextlib.AbstractContextManager[MetricBook]:
        return self.services.metrics.open(_target(delivery_id))

    def _observed(self, delivery: Delivery) -> list[Row]:
        # A receiver takes no sample of the future, and of its series none that would have to come behind that one.
        latest = (time.time() + _AHEAD_SECONDS) * 1000 if self.timestamp and self.mode == "remote_write" else math.inf
        return observe(delivery, self.metrics, timestamp=self.timestamp, deletes=self.deletes, latest=latest)

    def _tried(self, delivery: Delivery, rows: Sequence[Row]) -> tuple[Added, list[Series]]:
        with contextlib.suppress(_NothingIsKept), self._book(delivery.id) as book:
            prepare(book, self.metrics, delivery.table_id, self._policy)
            added = add(book, self.metrics, rows, self._policy)
            series = book.series()
            raise _NothingIsKept
        return added, series

    def _shared(self, delivery_id: str) -> dict[str, str]:
        """Labels that tell this delivery's series from all others: two routes may write the same metric."""
        return {"job": self.job, "instance": _target(delivery_id), **self.grouping}

    def _text(self, series: Sequence[Series]) -> bytes:
        return exposing.text(exposing.merged([exposing.Part("", self.metrics, series)]))


def _target(delivery_id: str) -> str:
    """The target that a delivery belongs to; a dead letter that is replayed has the letter behind it."""
    return delivery_id.partition("/")[0]


def _move(book: MetricBook, delivery: Delivery, refused: Mapping[int, str]) -> None:
    """Store the offset, short of the first refused record: after a crash it is refused once more, so that its dead letter is not lost."""
    if "/" in delivery.id:
        return
    held = book.held()
    before = held[1] if held and held[0] == delivery.table_id and held[1] is not None else 0
    book.move(delivery.table_id, max(before, min(refused) - 1 if refused else delivery.upto))


def _detail(added: Added) -> dict[str, Any]:
    said: dict[str, Any] = {"records_counted": len(added.changed), "series_made": added.made, "series_ended": added.ended}
    return said | ({"repeated": True} if added.repeats and not added.changed else {})


def _receipt(delivery: Delivery, refused: Mapping[int, str], detail: dict[str, Any]) -> Receipt:
    refusals = tuple(Refusal(seq, reason) for seq, reason in sorted(refused.items()))
    return Receipt(len(delivery.rows) - len(refusals), refusals, detail)
