"""Notices: what a destination is told of a run that failed, or that succeeds again. One record each, in the destination's own templates or
in Muxly's words."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.destination import Delivery, Destination
from muxly_dagster.messages import Template

TABLE = "muxly_notices"
"""What notices go by where a destination wants to know their table."""

_KEY = ("run_id",)
_SCHEMA = pa.schema(
    [
        pa.field("run_id", pa.string()),
        pa.field("job", pa.string()),
        pa.field("status", pa.string()),
        pa.field("title", pa.string()),
        pa.field("what", pa.string()),
        pa.field("do", pa.string()),
        pa.field("failed", pa.string()),
        pa.field("started_at", records.TIMESTAMP),
        pa.field("ended_at", records.TIMESTAMP),
        pa.field("url", pa.string()),
    ]
)
_GIVEN = frozenset({"record", "records", "count", "op", "key", "table", "rule"})
_PLAIN = "{{ what }}{% if do %}\n→ {{ do }}{% endif %}{% if url %}\n{{ url }}{% endif %}"
_MARKDOWN = "{{ what }}{% if do %}\n\n→ {{ do }}{% endif %}{% if url %}\n\n[open the run]({{ url }}){% endif %}"
_MRKDWN = "*{{ title }}*\n{{ what }}{% if do %}\n→ {{ do }}{% endif %}{% if url %}\n<{{ url }}|open the run>{% endif %}"
_WORDS: Mapping[str, Mapping[str, Any]] = {
    "slack": {"text": _MRKDWN, "blocks": None},
    "teams": {"title": "{{ title }}", "text": _MARKDOWN, "facts": {}, "card": None},
    "email": {"subject": "{{ title }}", "text": _PLAIN, "html": ""},
    "notify": {"title": "{{ title }}", "body": _PLAIN},
}
"""Muxly's words, by type of destination. Others, such as webhooks and databases, are given the record."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What there is to tell of a run. `seq` is the number of the event in Dagster's log, `log` stands for the log itself."""

    seq: int
    log: str
    run_id: str
    job: str
    status: str
    title: str
    what: str
    do: str = ""
    failed: str = ""
    started_at: dt.datetime | None = None
    ended_at: dt.datetime | None = None
    url: str = ""


SAMPLE = Notice(
    1,
    "0" * 16,
    "5a4b9b52-6d0c-5d0a-8a46-5a1bb13c62d7",
    "nightly",
    "failed",
    "nightly failed",
    "crm.deals: HubSpot refuses the token",
    "renew it",
    "crm.deals",
    dt.datetime(2026, 3, 1, 2, tzinfo=dt.UTC),
    dt.datetime(2026, 3, 1, 2, 1, tzinfo=dt.UTC),
    "https://dagster.acme.example/runs/5a4b9b52-6d0c-5d0a-8a46-5a1bb13c62d7",
)


def delivery_of(notice: Notice, name: str, destination: Destination) -> Delivery:
    """The delivery of one notice to a destination; it has the same id in every repetition."""
    said = {field: value for field, value in asdict(notice).items() if field in _SCHEMA.names}
    data = pa.Table.from_pylist([said], schema=_SCHEMA)
    at = notice.ended_at or dt.datetime.now(dt.UTC)
    values = (notice.seq, "upsert", records.key_texts(data, _KEY)[0].as_py(), int(records.content_hashes(data)[0]), at, notice.run_id, None)
    envelope = pa.Table.from_pylist([dict(zip(records.ENVELOPE.names, values, strict=True))], schema=records.ENVELOPE)
    rows = pa.table([*envelope.columns, *data.columns], schema=pa.schema([*records.ENVELOPE, *_SCHEMA]))
    words = _words(destination)
    return Delivery(
        id=f"{TABLE}/{name}",
        table=TABLE,
        table_id=notice.log,
        key=_KEY,
        rows=rows,
        after=notice.seq - 1,
        upto=notice.seq,
        connector_id="muxly",
        run_id=notice.run_id,
        rules=("notice",) if words else (),
        templates={"notice": words} if words else {},
    )


def check_notices(name: str, destination: Destination) -> None:
    """Try what a notice would look like. Raises ConfigurationError where the destination asks for columns that a notice does not have."""
    if destination.templates:
        destination.render(delivery_of(SAMPLE, name, destination))


def _words(destination: Destination) -> Mapping[str, Any]:
    """Muxly's words, unless the destination's own templates are about notices: they name what a notice has, and nothing else."""
    words = _WORDS.get(destination.type, {})
    own = {name for field in words for name in Template(_own(destination, field)).names} - _GIVEN
    return {} if own and own <= {*_SCHEMA.names} else words


def _own(destination: Destination, template: str) -> Any:
    fields = type(destination).model_fields
    return getattr(destination, next(field for field, info in fields.items() if template in (field, info.alias)))
