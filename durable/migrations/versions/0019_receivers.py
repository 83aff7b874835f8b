"""
Receivers: what became of each request.

Pre-deploy: older code does not know the table.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0019", "0018", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _exact(length):
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    text = sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
    op.create_table(
        "durable_received",
        sa.Column("request_id", _ascii(64), primary_key=True),
        sa.Column("receiver", _ascii(64), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("dedupe_key", _ascii(64)),
        sa.Column("outcome", _ascii(16), nullable=False),
        sa.Column("rule", _exact(255)),
        sa.Column("run_id", _ascii(64)),
        sa.Column("token", _exact(255)),
        sa.Column("waits_for", _ascii(64)),
        sa.Column("waits_until", sa.BigInteger()),
        sa.Column("started_for", _ascii(64), unique=True),
        sa.Column("detail", text),
    )
    indexes = {
        "durable_received_by_age": ["receiver", "received_at"],
        "durable_received_by_outcome": ["receiver", "outcome", "received_at"],
        "durable_received_by_run": ["run_id", "received_at"],
        "durable_received_by_wait": ["waits_until"],
        "durable_received_by_token": ["waits_for"],
    }
    for name, columns in indexes.items():
        op.create_index(name, "durable_received", columns)
    op.create_index("durable_received_once", "durable_received", ["receiver", "dedupe_key"], unique=True)


def downgrade() -> None:
    op.drop_table("durable_received")
