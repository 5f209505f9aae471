"""Prometheus remote write: samples planned while values are written, sent in 2.0 or 1.0, and answered for.

What is planned depends on the rows and on what was confirmed before them alone, so a delivery that is repeated after a crash sends the same
samples with the same times, which a receiver takes as the ones it has.

Sources: prometheus.io/docs/specs/prw/remote_write_spec and .../remote_write_spec_2_0.
"""

import dataclasses
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import cramjam

from muxly_dagster import remote_write
from muxly_dagster.destinations.prometheus.accumulating import Added, Place
from muxly_dagster.destinations.prometheus.exposing import samples
from muxly_dagster.destinations.prometheus.metric import Metric
from muxly_dagster.destinations.prometheus.observing import Row
from muxly_dagster.destinations.prometheus.receiver import EXCERPT, Receiver
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.http import Http, Response
from muxly_dagster.services import MetricBook, Series

Version = Literal["2.0", "1.0"]

STALE: float = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""The value that ends a series: a NaN of its own kind, told from others by its bits."""

RESERVED = frozenset({"content-encoding", "content-type", "user-agent", "x-prometheus-remote-write-version"})
"""Headers that the protocol sets, in lower case."""

_WRITTEN = "X-Prometheus-Remote-Write-{}-Written"
_OUT_OF_TURN = ("out of order", "duplicate sample", "duplicate timestamp")


@dataclass(frozen=True, slots=True)
class Planned:
    """A series at a moment: `series` holds the value to write at `at`. `seqs` are the changes that it answers for.

    `late`: the receiver has confirmed a newer sample. `repeated`: it may have been written by an attempt that was interrupted.
    """

    series: Series
    at: int
    seqs: tuple[int, ...] = ()
    late: bool = False
    repeated: bool = False
    ends: bool = False

    @property
    def place(self) -> Place:
        """The series that it belongs to."""
        return self.series.metric, self.series.labels


@dataclass(slots=True)
class Written:
    """How sending went: refused changes with the reason, and counts for the receipt.

    `doubtful` are samples that may have been written, together with newer ones, by a request that was refused in part: what they are
    refused for; `behind` are the series of which the receiver has newer samples than any that were sent.
    """

    refused: dict[int, str] = field(default_factory=dict)
    version: str = ""
    requests: int = 0
    samples: int = 0
    unwanted_ends: int = 0
    doubtful: list[tuple[Planned, int, str]] = field(default_factory=list)
    behind: set[Place] = field(default_factory=set)


# ---- what is to be sent ------------------------------------------------------------------------------------------------


def plan(
    book: MetricBook, metrics: Sequence[Metric], rows: Sequence[Row], added: Added, *, timed: bool
) -> tuple[list[Planned], dict[Place, Series]]:
    """The samples of rows that were just added, and the series as they are to be confirmed once those are written.

    Of a series goes its value now; of a gauge whose times stand in a column, every value at its own time.
    """
    planned: list[Planned] = []
    sent: dict[Place, Series] = {}
    histories = _histories(metrics, rows, added) if timed else {}
    for metric in metrics:
        places = [place for place in added.seqs if place[0] == metric.family]
        for series in book.find(metric.family, [labels for _, labels in places]):
            place = series.metric, series.labels
            if place in histories:
                values = list(_timed(series, added.before.get(place), histories[place]))
                planned += values
                newest = max([series.sample_at, *(each.at + (1 if series.gone else 0) for each in values)])
                series = dataclasses.replace(series, sample_at=newest)
                book.save([series])
                series = dataclasses.replace(series, sent_at=max([series.sent_at, *(each.at for each in values)]))
            elif not series.gone and not (timed and series.kind == "gauge"):
                repeated = all((metric.family, seq) in added.repeats for seq in added.seqs[place])
                planned.append(Planned(series, series.sample_at, tuple(added.seqs[place]), repeated=repeated))
                series = dataclasses.replace(series, sent_at=series.sample_at)
            sent[place] = series
    oldest = min((row.at for row in rows if not row.refused), default=0)
    for series in book.gone():
        if series.sent_at < series.sample_at:
            planned.append(Planned(series, series.sample_at, ends=True, repeated=True))
            sent[series.metric, series.labels] = dataclasses.replace(series, sent_at=series.sample_at)
        elif series.sample_at < oldest:
            # Kept until now so that a record that came back at the same moment would be written behind the end of its series.
            book.remove([series])
    return planned, sent


def _histories(metrics: Sequence[Metric], rows: Sequence[Row], added: Added) -> dict[Place, list[tuple[Row, float]]]:
    found: dict[Place, list[tuple[Row, float]]] = {}
    gauges = [(number, metric.family) for number, metric in enumerate(metrics) if metric.type == "gauge"]
    for row in rows:
        for number, family in gauges if row.seq not in added.refused else ():
            seen = row.observations[number]
            if seen is not None and seen.value is not None and (family, row.seq) not in added.repeats:
                found.setdefault((family, seen.labels), []).append((row, seen.value))
    return found


def _timed(series: Series, before: Series | None, values: Iterable[tuple[Row, float]]) -> Iterator[Planned]:
    """A gauge's values at their own times, one for each time; what is not older than the newest there is comes behind it.

    Where `before` has a sample that was never confirmed, an attempt was interrupted, and may have written all up to it.
    """
    confirmed, possible, newest, last = (before.sent_at, before.sample_at, before.at, before.seq) if before else (0, 0, 0, 0)
    found: dict[int, Planned] = {}
    for row, value in sorted(values, key=lambda each: (each[0].at, each[0].seq)):
        floor = confirmed if row.seq <= last else possible
        at = max(row.at, floor + 1) if before is not None and row.at >= newest else row.at
        seqs = (*(found[at].seqs if at in found else ()), row.seq)
        shown = dataclasses.replace(series, value=value)
        found[at] = Planned(shown, at, seqs, late=before is not None and at <= confirmed, repeated=at <= possible)
    return iter(found.values())


# ---- sending -----------------------------------------------------------------------------------------------------------


@dataclass
class Sender:
    """Sends samples to a receiver, in the newest version that it understands. `version` None: 2.0, and 1.0 where that is not understood."""

    receiver: Receiver
    metrics: Mapping[str, Metric]
    shared: Mapping[str, str]
    most: int
    version: Version | None = None
    spoken: Version = "2.0"

    def send(self, http: Http, planned: Sequence[Planned]) -> Written:
        """Send everything, in requests of at most `most` samples. Raises as `Receiver.ask`; what is refused by itself is in the answer."""
        self.spoken = self.version or self.spoken
        done = Written()
        for chunk in _chunks(planned, self.most):
            self._send(http, chunk, done, {})
        for one, count, reason in done.doubtful:
            if one.place in done.behind:  # the receiver takes not even the newest: what it has is somebody else's
                done.refused |= dict.fromkeys(one.seqs, reason)
            else:
                done.samples += count
        done.version = self.spoken
        return done

    def _send(self, http: Http, chunk: Sequence[Planned], done: Written, newest: Mapping[Place, int]) -> None:
        """Send some; what is refused together is sent in halves until each sample at fault stands alone.

        `newest` are by series the times of the last samples in a request that was refused, though some of it may have been written.
        """
        response, count = self._ask(http, chunk, done)
        if response.status < 300:
            written = _count(response, "Samples") if self.spoken == "2.0" else count
            if written >= count:
                done.samples += count
                return
            reason = f"the receiver says it wrote {written} of {count} samples"
        else:
            said = response.excerpt(EXCERPT)
            reason = f"{response.reason}: {said}" if said else response.reason
        if len(chunk) > 1:
            if not newest and not (self.spoken == "2.0" and response.headers.get(_WRITTEN.format("Samples")) == "0"):
                newest = {one.place: one.at for one in chunk}
            middle = len(chunk) // 2
            self._send(http, chunk[:middle], done, newest)
            self._send(http, chunk[middle:], done, newest)
            return
        (one,) = chunk
        out_of_turn = any(text in reason.lower().replace("-", " ") for text in _OUT_OF_TURN)
        if one.ends:
            done.unwanted_ends += 1
        elif out_of_turn and not one.late and one.repeated:
            done.samples += count  # it, or a newer one, came with a request that was not answered
        elif out_of_turn and not one.late and one.at < newest.get(one.place, one.at):
            done.doubtful.append((one, count, reason))
        else:
            done.behind |= {one.place} if out_of_turn and not one.late else set()
            done.refused |= dict.fromkeys(one.seqs, reason)

    def _ask(self, http: Http, chunk: Sequence[Planned], done: Written) -> tuple[Response, int]:
        done.requests += 1
        content, count = (self._two if self.spoken == "2.0" else self._one)(chunk)
        response = self.receiver.ask(http, "POST", self.receiver.address, content=compressed(content), headers=headers(self.spoken))
        if self.spoken == "1.0" or not _unknown(response):
            return response, count
        if self.version == "2.0":
            raise ConfigurationError(
                f"the receiver does not understand remote write 2.0 ({response.reason})",
                do="set `protocol: auto` or `protocol: 1.0`",
                where=self.receiver.host,
            )
        self.spoken = "1.0"
        return self._ask(http, chunk, done)

    def _two(self, chunk: Sequence[Planned]) -> tuple[bytes, int]:
        """`io.prometheus.write.v2.Request`: every text once, in `symbols`, of which the first is empty."""
        symbols: dict[str, int] = {"": 0}
        series: dict[tuple[tuple[str, str], ...], Any] = {}
        request = remote_write.Request()
        count = 0
        for one in chunk:
            for labels, value in self._samples(one):
                count += 1
                if (made := series.get(labels)) is None:
                    made = series[labels] = request.timeseries.add()
                    made.labels_refs.extend(symbols.setdefault(text, len(symbols)) for pair in labels for text in pair)
                    metric = self.metrics.get(one.series.metric)
                    made.metadata.type = remote_write.KINDS[one.series.kind]
                    made.metadata.help_ref = symbols.setdefault(metric.help if metric else "", len(symbols))
                    made.metadata.unit_ref = symbols.setdefault(metric.unit if metric else "", len(symbols))
                start = one.series.created_at if one.series.kind != "gauge" else 0
                made.samples.add(value=value, timestamp=one.at, start_timestamp=start)
        request.symbols.extend(symbols)
        return request.SerializeToString(), count

    def _one(self, chunk: Sequence[Planned]) -> tuple[bytes, int]:
        """`prometheus.WriteRequest`, with the metadata that Prometheus itself sends along."""
        series: dict[tuple[tuple[str, str], ...], Any] = {}
        request = remote_write.WriteRequest()
        count = 0
        for one in chunk:
            for labels, value in self._samples(one):
                count += 1
                if (made := series.get(labels)) is None:
                    made = series[labels] = request.timeseries.add()
                    for name, text in labels:
                        made.labels.add(name=name, value=text)
                made.samples.add(value=value, timestamp=one.at)
        for family in dict.fromkeys(one.series.metric for one in chunk):
            if metric := self.metrics.get(family):
                kind = remote_write.KINDS[metric.type]
                request.metadata.add(type=kind, metric_family_name=family, help=metric.help, unit=metric.unit)
        return request.SerializeToString(), count

    def _samples(self, one: Planned) -> Iterator[tuple[tuple[tuple[str, str], ...], float]]:
        """Labels as the protocol wants them: with the name, sorted, none of them empty."""
        for name, own, value in samples(one.series):
            labels = {**self.shared, **own, "__name__": name}
            yield tuple(sorted((label, text) for label, text in labels.items() if text)), STALE if one.ends else value


def headers(version: Version) -> dict[str, str]:
    """What a request of this version says about itself."""
    proto = ";proto=io.prometheus.write.v2.Request" if version == "2.0" else ""
    return {
        "Content-Type": f"application/x-protobuf{proto}",
        "Content-Encoding": "snappy",
        "X-Prometheus-Remote-Write-Version": "2.0.0" if version == "2.0" else "0.1.0",
    }


def compressed(content: bytes) -> bytes:
    """Snappy's block format, not the framed one."""
    return bytes(cramjam.snappy.compress_raw(content))


def _unknown(response: Response) -> bool:
    """Whether a receiver does not know 2.0: it says so, or it lacks what 2.0 asks of every answer, as one that reads only 1.0 does."""
    told = any(_WRITTEN.format(what) in response.headers for what in ("Samples", "Histograms", "Exemplars"))
    return response.status == 415 or (not told and (response.status < 300 or response.status == 400))


def _count(response: Response, what: str) -> int:
    text = response.headers.get(_WRITTEN.format(what), "").strip()
    return int(text) if text.isdigit() else 0


def _chunks(planned: Sequence[Planned], most: int) -> Iterator[list[Planned]]:
    """Pieces of at most so many samples, in the order of times: a receiver takes a series' samples in no other."""
    chunk: list[Planned] = []
    held = 0
    for one in sorted(planned, key=lambda each: each.at):
        size = len(one.series.buckets) + 3 if one.series.kind == "histogram" else 2
        if chunk and held + size > most:
            yield chunk
            chunk, held = [], 0
        chunk.append(one)
        held += size
    if chunk:
        yield chunk
