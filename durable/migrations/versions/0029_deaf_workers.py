"""
Workers that take no messages: since when.

Pre-deploy: older code does not know the column, and its workers are never marked.
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision, phase = "0029", "0028", "pre"


def upgrade() -> None:
    op.add_column("durable_workers", sa.Column("deaf_since", sa.BigInteger()))


def downgrade() -> None:
    op.drop_column("durable_workers", "deaf_since")
