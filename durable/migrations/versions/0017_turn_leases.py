"""
Turn leases: which process takes the turns of a run while several have outcomes for it.

A lease is worth nothing after a crash of the database, so PostgreSQL need not log it.

Pre-deploy: older code does not know the table.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0017", "0016", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "durable_turn_leases",
        sa.Column("run_id", _ascii(64), primary_key=True),
        sa.Column("holder", _ascii(32), nullable=False),
        sa.Column("worker_id", _ascii(64), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE durable_turn_leases SET UNLOGGED")


def downgrade() -> None:
    op.drop_table("durable_turn_leases")
