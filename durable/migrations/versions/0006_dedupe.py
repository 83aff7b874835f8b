"""
Requests that are sent again are known by their dedupe key, and kept once for each webhook.

Pre-deploy: NULL, which may repeat, is what older code leaves there.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0006", "0005", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("durable_requests", sa.Column("dedupe_key", _ascii(64), nullable=True))
    op.create_index("durable_requests_once", "durable_requests", ["run_id", "op_id", "dedupe_key"], unique=True)


def downgrade() -> None:
    op.drop_index("durable_requests_once", table_name="durable_requests")
    op.drop_column("durable_requests", "dedupe_key")
