"""
The pool of each worker process.

Pre-deploy: older code leaves it NULL.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0014", "0013", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("durable_workers", sa.Column("pool", _ascii(32), nullable=True))


def downgrade() -> None:
    op.drop_column("durable_workers", "pool")
