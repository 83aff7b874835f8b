"""
The broker's sentinel has a table of its own; it was a row of the leases, with ``2**62`` for "nothing is lost".

Pre-deploy: older code goes on with its row of the leases, which newer code writes too.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0010", "0009", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "durable_broker_sentinel",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("name", _ascii(64), nullable=False),
        sa.Column("lost_at", sa.BigInteger(), nullable=True),
    )
    op.execute(
        "INSERT INTO durable_broker_sentinel (id, name, lost_at)"
        " SELECT 1, owner, CASE WHEN expires_at = 4611686018427387904 THEN NULL ELSE expires_at END"
        " FROM durable_leases WHERE name = 'sentinel' AND owner IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_table("durable_broker_sentinel")
