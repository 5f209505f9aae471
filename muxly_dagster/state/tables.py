"""The tables of the state database. A change here needs a migration beside it; a test compares the two."""

import datetime as dt

import sqlalchemy as sa

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
    sa.Column("status", sa.String(16), nullable=False),  # open, replayed, superseded, resolved
    sa.Column("times", sa.Integer, nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("at", _TIME, nullable=False),
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


def now() -> str:
    """The present moment as these tables hold it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
