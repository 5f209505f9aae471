"""The index of accepted events in segments. Those of before are not brought over: no version was released that wrote them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.drop_table("inbox_ids")
    op.create_table(
        "inbox_segments",
        sa.Column("segment", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("buckets", sa.Integer, nullable=False),
        sa.Column("merged", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "inbox_buckets",
        sa.Column("place", _SEQ, primary_key=True, autoincrement=False),
        sa.Column("marks", sa.LargeBinary, nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("alter table inbox_buckets alter column marks set storage external")  # hashes cannot be compressed


def downgrade() -> None:
    op.drop_table("inbox_buckets")
    op.drop_table("inbox_segments")
    op.create_table(
        "inbox_ids",
        sa.Column("mark", sa.LargeBinary(16), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
