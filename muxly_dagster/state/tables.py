"""The tables of the state database. A change here needs a migration beside it; a test compares the two."""

import datetime as dt
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_TIME = sa.String(32)  # RFC 3339 UTC: reads alike in every database and sorts as text

cursors = sa.Table(
    "cursors",
    metadata,
    sa.Column("pull", sa.String(255), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),  # the row that counts is the one the lake's newest commit names
    sa.Column("table_id", sa.String(16), nullable=False),  # empty until the lake table exists
    sa.Column("cursor", sa.JSON, nullable=False),
    sa.Column("written_at", _TIME, nullable=False),
)

pulls = sa.Table(
    "pulls",
    metadata,
    sa.Column("pull", sa.String(255), primary_key=True),
    sa.Column("table_id", sa.String(16), nullable=False),
    sa.Column("last_success", _TIME, nullable=False),
)

offsets = sa.Table(
    "offsets",
    metadata,
    sa.Column("target", sa.String(255), primary_key=True),
    sa.Column("table_id", sa.String(16), nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("moved_at", _TIME, nullable=False),
    sa.Column("resync_upto", sa.BigInteger),  # up to this seq only the newest change of each key is sent; null: no resync is under way
)

ahead = sa.Table(
    "ahead",  # changes beyond the offset that the destination took all the same: they are not sent again
    metadata,
    sa.Column("target", sa.String(255), primary_key=True),
    sa.Column("table_id", sa.String(16), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True),
)

alike = sa.Table(
    "alike",  # what was delivered a short while ago, for targets that hold back records like it
    metadata,
    sa.Column("target", sa.String(255), primary_key=True),
    sa.Column("mark", sa.String(32), primary_key=True),  # a hash of what makes records alike
    sa.Column("delivered_at", _TIME, nullable=False),
)

rulesets = sa.Table(
    "rulesets",  # the rules that decided, as they were then
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("rules", sa.JSON, nullable=False),
)

breakers = sa.Table(
    "breakers",
    metadata,
    sa.Column("destination", sa.String(255), primary_key=True),
    sa.Column("status", sa.String(16), nullable=False),  # closed, open, probing, disabled
    sa.Column("failures", sa.Integer, nullable=False),  # in a row
    sa.Column("times", sa.Integer, nullable=False),  # how often it opened in a row
    sa.Column("until", _TIME),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("since", _TIME, nullable=False),
)

waiting = sa.Table(
    "waiting",
    metadata,
    sa.Column("target", sa.String(255), primary_key=True),
    sa.Column("until", _TIME, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),  # in a row; 0 where it waits for another reason
)

receipts = sa.Table(
    "receipts",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("target", sa.String(255), nullable=False),
    sa.Column("table_id", sa.String(16), nullable=False),
    sa.Column("after", sa.BigInteger, nullable=False),
    sa.Column("upto", sa.BigInteger, nullable=False),
    sa.Column("read", sa.BigInteger, nullable=False),
    sa.Column("accepted", sa.BigInteger, nullable=False),
    sa.Column("refused", sa.BigInteger, nullable=False),
    sa.Column("unrouted", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("detail", sa.JSON, nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("at", _TIME, nullable=False),
    sa.Column("ruleset", sa.String(16)),  # null in receipts from before rules were kept
    sa.Index("ix_receipts_target_upto", "target", "upto"),
)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),  # pull: could not be read; delivery: a destination refused it
    sa.Column("name", sa.String(255), nullable=False),  # the pull or the target
    sa.Column("record_id", sa.String(255), nullable=False),  # empty for pulls: the record never got one
    sa.Column("table_id", sa.String(16), nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),  # open, replayed, superseded, resolved, skipped
    sa.Column("times", sa.Integer, nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("at", _TIME, nullable=False),
    sa.Column("edited", sa.Text),  # the data as a person corrected it, as JSON; it is what a replay sends
    sa.Index("ix_dead_letters_name_status", "name", "status"),
)

budgets = sa.Table(
    "budgets",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),  # a hash: what names an account may be secret
    sa.Column("turns", sa.JSON, nullable=False),  # starts that are reserved or were made: [[id, begins, ends, count], ...]
    sa.Column("places", sa.JSON, nullable=False),  # who has requests under way: {holder: [count, wants, since, until]}
    sa.Column("paused_until", sa.Float, nullable=False),  # all times here are seconds since 1970
)

metric_positions = sa.Table(
    "metric_positions",
    metadata,
    sa.Column("target", sa.String(255), primary_key=True),
    sa.Column("table_id", sa.String(16), nullable=False),  # the lake table that the target's values are made of
    sa.Column("seq", sa.BigInteger),  # null: set back, everything is delivered again
)

metric_definitions = sa.Table(
    "metric_definitions",
    metadata,
    sa.Column("target", sa.String(255), primary_key=True),
    sa.Column("metric", sa.String(255), primary_key=True),
    sa.Column("definition", sa.String(32), nullable=False),  # a hash of all that values depend on: another one begins anew
)

metric_series = sa.Table(
    "metric_series",
    metadata,
    sa.Column("target", sa.String(255), primary_key=True),
    sa.Column("metric", sa.String(255), primary_key=True),
    sa.Column("id", sa.String(32), primary_key=True),  # a hash of the labels
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("value", sa.Float, nullable=False),  # a gauge's value, a counter's total, else the sum of what was observed
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("buckets", sa.JSON, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),  # the newest change in it
    sa.Column("owner", sa.String(32), nullable=False),  # a hash of the key whose record gave a gauge its value
    sa.Column("at", sa.BigInteger, nullable=False),  # all times here are milliseconds since 1970
    sa.Column("sample_at", sa.BigInteger, nullable=False),
    sa.Column("sent_at", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("gone", sa.Boolean, nullable=False),  # ended, and kept until a receiver knows it
    sa.Index("ix_metric_series_target_metric_owner", "target", "metric", "owner"),
)

metric_counted = sa.Table(
    "metric_counted",
    metadata,
    sa.Column("target", sa.String(255), primary_key=True),
    sa.Column("metric", sa.String(255), primary_key=True),
    sa.Column("chunk", sa.BigInteger, primary_key=True),  # 65,536 changes of the lake table
    sa.Column("bits", sa.LargeBinary, nullable=False),  # one for each change, set where the metric holds it; compressed
)

metric_keys = sa.Table(
    "metric_keys",
    metadata,
    sa.Column("target", sa.String(255), primary_key=True),
    sa.Column("metric", sa.String(255), primary_key=True),
    sa.Column("key", sa.String(32), primary_key=True),  # a hash of a key that was counted, for metrics that count each once
)


_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite numbers rows by themselves only in an INTEGER

inbox = sa.Table(
    "inbox",  # parcels of collected events, until they are in the lake
    metadata,
    sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
    sa.Column("source", sa.String(255), nullable=False),
    sa.Column("stream", sa.String(255), nullable=False),
    sa.Column("received_at", _TIME, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),  # of events, the refused ones among them
    sa.Column("size", sa.Integer, nullable=False),  # bytes
    sa.Column("ids", sa.Text, nullable=False),  # one a line, as the lines of the body
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("refused", sa.Text, nullable=False),  # JSON: pairs of text and reason; empty for none
    sa.Index("ix_inbox_source_stream_seq", "source", "stream", "seq", "count", "size"),  # enough to say how deep it is
    sqlite_autoincrement=True,  # a number that was given once is never given again, though its row be deleted
)

inbox_recent = sa.Table(
    "inbox_recent",  # events that were accepted, in order of arrival, until they are in a segment
    metadata,
    sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
    sa.Column("at", sa.BigInteger, nullable=False),  # seconds since 1970
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("marks", sa.LargeBinary, nullable=False),  # hashes of source, stream and id, one behind the other
    sqlite_autoincrement=True,
)

inbox_segments = sa.Table(
    "inbox_segments",  # events that were accepted, so that a repetition is known for one: so many at once
    metadata,
    sa.Column("segment", _SEQ, primary_key=True, autoincrement=True),
    sa.Column("since", sa.BigInteger, nullable=False),  # the oldest of them, seconds since 1970
    sa.Column("at", sa.BigInteger, nullable=False),  # the newest of them
    sa.Column("count", sa.BigInteger, nullable=False),  # 0 until all of them are there
    sa.Column("buckets", sa.Integer, nullable=False),
    sa.Column("merged", sa.Text, nullable=False),  # JSON: the segments that it was made of
    sqlite_autoincrement=True,
)

inbox_buckets = sa.Table(
    "inbox_buckets",  # their marks, by bits of these
    metadata,
    sa.Column("place", _SEQ, primary_key=True, autoincrement=False),  # of segment and bucket
    sa.Column("marks", sa.LargeBinary, nullable=False),
)

inbox_requests = sa.Table(
    "inbox_requests",  # requests that were answered, by Idempotency-Key
    metadata,
    sa.Column("mark", sa.LargeBinary(16), primary_key=True),  # a hash of source, stream and key
    sa.Column("fingerprint", sa.LargeBinary(16), nullable=False),  # a hash of what was sent
    sa.Column("receipt", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

write_keys = sa.Table(
    "write_keys",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("hash", sa.String(64), nullable=False),  # SHA-256 of the whole key, which is never kept
    sa.Column("source", sa.String(255), nullable=False),
    sa.Column("streams", sa.JSON, nullable=False),  # empty: all of the source
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("rate", sa.String(64), nullable=False),  # of requests; empty: no limit
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("revoked_at", _TIME),
)

jobs = sa.Table(
    "jobs",  # jobs that were made by the API, and what it changed about those of muxly.yaml
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("spec", sa.JSON(none_as_null=True)),  # as under `jobs: NAME:`; null: it stands in muxly.yaml
    sa.Column("paused", sa.Boolean, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("updated_at", _TIME, nullable=False),
)

calls = sa.Table(
    "calls",  # of webhooks
    metadata,
    sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("job", sa.String(255), nullable=False),
    sa.Column("delivery_id", sa.String(255), nullable=False),
    sa.Column("received_at", _TIME, nullable=False),
    sa.Column("headers", sa.JSON, nullable=False),
    sa.Column("query", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("start", sa.String(36)),  # the start whose run took it; null: no run has taken it yet
    sa.Index("ix_calls_job_seq", "job", "seq"),
    sa.Index("ix_calls_job_delivery_id", "job", "delivery_id", unique=True),
    sa.Index("ix_calls_start_job_seq", "start", "job", "seq"),
    sqlite_autoincrement=True,
)

starts = sa.Table(
    "starts",  # runs that are to be started, and what became of that
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),  # the id of the run that Dagster is asked for
    sa.Column("job", sa.String(255), nullable=False),
    sa.Column("cause", sa.String(16), nullable=False),  # webhook, cron, api
    sa.Column("due_at", _TIME, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("submitted_at", _TIME),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("run_id", sa.String(36)),  # the run that began; null: none has yet
    sa.Column("ended", sa.String(16)),  # begun, cancelled; null: it is still to begin
    sa.Index("ix_starts_ended_due_at", "ended", "due_at"),
    sa.Index("ix_starts_job_ended", "job", "ended"),
)
_OPEN = sa.and_(starts.c.cause == "webhook", starts.c.ended.is_(None))
sa.Index("uq_starts_open_webhook", starts.c.job, unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN)  # one for a job at a time


def ensure(connection: sa.Connection, table: sa.Table, **values: object) -> None:
    """Insert a row unless there is one of its key already, whoever else does the same at the same time."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    connection.execute(insert(table).values(**values).on_conflict_do_nothing())


def put(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows, in place of those of the same keys."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    query = insert(table)
    keys = [column.name for column in table.primary_key]
    new = {column.name: query.excluded[column.name] for column in table.columns if column.name not in keys}
    connection.execute(query.on_conflict_do_update(index_elements=keys, set_=new), rows)


def now() -> str:
    """The present moment as these tables hold it."""
    return written(dt.datetime.now(dt.UTC))


def written(moment: dt.datetime) -> str:
    """A moment as these tables hold it."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
