"""What deliveries wait for, what was taken ahead of an offset, the rules that decided, breakers, edited dead letters."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_TIME = sa.String(32)


def upgrade() -> None:
    op.create_table(
        "ahead",
        sa.Column("target", sa.String(255), primary_key=True),
        sa.Column("table_id", sa.String(16), primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True),
    )
    op.create_table(
        "alike",
        sa.Column("target", sa.String(255), primary_key=True),
        sa.Column("mark", sa.String(32), primary_key=True),
        sa.Column("delivered_at", _TIME, nullable=False),
    )
    op.create_table(
        "rulesets",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("rules", sa.JSON, nullable=False),
    )
    op.create_table(
        "breakers",
        sa.Column("destination", sa.String(255), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("times", sa.Integer, nullable=False),
        sa.Column("until", _TIME),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", _TIME, nullable=False),
    )
    op.create_table(
        "waiting",
        sa.Column("target", sa.String(255), primary_key=True),
        sa.Column("until", _TIME, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
    )
    op.add_column("offsets", sa.Column("resync_upto", sa.BigInteger))
    op.add_column("receipts", sa.Column("ruleset", sa.String(16)))
    op.add_column("dead_letters", sa.Column("edited", sa.Text))


def downgrade() -> None:
    op.drop_column("dead_letters", "edited")
    op.drop_column("receipts", "ruleset")
    op.drop_column("offsets", "resync_upto")
    for table in ("waiting", "breakers", "rulesets", "alike", "ahead"):
        op.drop_table(table)
