"""
Published values: the latest of each name.

Pre-deploy: older code does not know the table.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0024", "0023", "pre"


def upgrade() -> None:
    run_id = sa.String(64).with_variant(mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
    name = sa.String(255).with_variant(
        mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )
    text = sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
    op.create_table(
        "durable_values",
        sa.Column("run_id", run_id, primary_key=True),
        sa.Column("name", name, primary_key=True),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.Column("value", text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("durable_values")
