"""
Large values leave the log for a table of their own.

Pre-deploy.  Older code takes a reference for a value it cannot read: finish the deploy before large values are needed.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0008", "0007", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "durable_payloads",
        sa.Column("run_id", _ascii(64), primary_key=True),
        sa.Column("digest", _ascii(64), primary_key=True),
        sa.Column("part", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("stored_at", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb"), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("durable_payloads")
