"""
The totals of what all processes have measured.

Pre-deploy: older code does not know the table.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0012", "0011", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _exact(length):
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "durable_totals",
        sa.Column("name", _ascii(64), primary_key=True),
        sa.Column("label", _exact(255), primary_key=True),
        sa.Column("detail", _ascii(64), primary_key=True),
        sa.Column("value", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("durable_totals")
