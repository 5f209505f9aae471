"""Values of metrics, and which changes they count."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "metric_positions",
        sa.Column("target", sa.String(255), primary_key=True),
        sa.Column("table_id", sa.String(16), nullable=False),
        sa.Column("seq", sa.BigInteger),
    )
    op.create_table(
        "metric_definitions",
        sa.Column("target", sa.String(255), primary_key=True),
        sa.Column("metric", sa.String(255), primary_key=True),
        sa.Column("definition", sa.String(32), nullable=False),
    )
    op.create_table(
        "metric_series",
        sa.Column("target", sa.String(255), primary_key=True),
        sa.Column("metric", sa.String(255), primary_key=True),
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("buckets", sa.JSON, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("sample_at", sa.BigInteger, nullable=False),
        sa.Column("sent_at", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("gone", sa.Boolean, nullable=False),
    )
    op.create_index("ix_metric_series_target_metric_owner", "metric_series", ["target", "metric", "owner"])
    op.create_table(
        "metric_counted",
        sa.Column("target", sa.String(255), primary_key=True),
        sa.Column("metric", sa.String(255), primary_key=True),
        sa.Column("chunk", sa.BigInteger, primary_key=True),
        sa.Column("bits", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "metric_keys",
        sa.Column("target", sa.String(255), primary_key=True),
        sa.Column("metric", sa.String(255), primary_key=True),
        sa.Column("key", sa.String(32), primary_key=True),
    )


def downgrade() -> None:
    for table in ("metric_keys", "metric_counted", "metric_series", "metric_definitions", "metric_positions"):
        op.drop_table(table)
