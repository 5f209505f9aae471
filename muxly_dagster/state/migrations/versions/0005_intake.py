"""What the API takes in: collected events, webhooks' calls, starts of runs, jobs made by it, write keys."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_TIME = sa.String(32)
_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "inbox",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("stream", sa.String(255), nullable=False),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("ids", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("refused", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_inbox_source_stream_seq", "inbox", ["source", "stream", "seq", "count", "size"])
    op.create_table(
        "inbox_recent",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("marks", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    if op.get_bind().dialect.name == "postgresql":
        # Compressing what is soon deleted costs more than all the rest of storing it.
        op.execute("alter table inbox alter column body set storage external, alter column ids set storage external")
        op.execute("alter table inbox_recent alter column marks set storage external")
    op.create_table(
        "inbox_ids",
        sa.Column("mark", sa.LargeBinary(16), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "inbox_requests",
        sa.Column("mark", sa.LargeBinary(16), primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary(16), nullable=False),
        sa.Column("receipt", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_inbox_requests_at", "inbox_requests", ["at"])
    op.create_table(
        "write_keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("streams", sa.JSON, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("rate", sa.String(64), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("revoked_at", _TIME),
    )
    op.create_table(
        "jobs",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("spec", sa.JSON(none_as_null=True)),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
    )
    op.create_table(
        "calls",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("job", sa.String(255), nullable=False),
        sa.Column("delivery_id", sa.String(255), nullable=False),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("headers", sa.JSON, nullable=False),
        sa.Column("query", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("start", sa.String(36)),
        sa.UniqueConstraint("id", name="uq_calls_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_calls_job_seq", "calls", ["job", "seq"])
    op.create_index("ix_calls_job_delivery_id", "calls", ["job", "delivery_id"], unique=True)
    op.create_index("ix_calls_start_job_seq", "calls", ["start", "job", "seq"])
    op.create_table(
        "starts",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("job", sa.String(255), nullable=False),
        sa.Column("cause", sa.String(16), nullable=False),
        sa.Column("due_at", _TIME, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("submitted_at", _TIME),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("run_id", sa.String(36)),
        sa.Column("ended", sa.String(16)),
    )
    op.create_index("ix_starts_ended_due_at", "starts", ["ended", "due_at"])
    op.create_index("ix_starts_job_ended", "starts", ["job", "ended"])
    opened = sa.text("cause = 'webhook' and ended is null")
    op.create_index("uq_starts_open_webhook", "starts", ["job"], unique=True, sqlite_where=opened, postgresql_where=opened)


def downgrade() -> None:
    for table in ("starts", "calls", "jobs", "write_keys", "inbox_requests", "inbox_ids", "inbox_recent", "inbox"):
        op.drop_table(table)
