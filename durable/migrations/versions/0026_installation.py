"""
The installation: an id that its messages carry, and when its workers took messages of another one.

Pre-deploy: older code sends messages without the id, which count as the installation's own.
"""

import secrets

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0026", "0025", "pre"


def upgrade() -> None:
    name = sa.String(32).with_variant(mysql.VARCHAR(32, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
    queue = sa.String(255).with_variant(
        mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )
    table = op.create_table(
        "durable_installation",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("name", name, nullable=False),
        sa.Column("foreign_at", sa.BigInteger()),
        sa.Column("foreign_queue", queue),
    )
    op.bulk_insert(table, [{"id": 1, "name": secrets.token_hex(8)}])


def downgrade() -> None:
    op.drop_table("durable_installation")
