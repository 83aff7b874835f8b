"""
Receivers: how many requests each has refused because their sender was not verified.

Pre-deploy: older code does not know the table.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0023", "0022", "pre"


def upgrade() -> None:
    name = sa.String(64).with_variant(mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
    text = sa.String(255).with_variant(
        mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )
    op.create_table(
        "durable_receivers",
        sa.Column("name", name, primary_key=True),
        sa.Column("refused", sa.BigInteger(), nullable=False),
        sa.Column("refused_at", sa.BigInteger(), nullable=False),
        sa.Column("refusal", text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("durable_receivers")
