"""
What tells a lost message from one that waits its turn; deadlines and signs of life of attempts; turns that died.

Pre-deploy: older code neither reads nor fills what is new.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0003", "0002", "pre"


def _exact(length):
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _long_text():
    return sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("durable_runs", sa.Column("turn_tries", sa.Integer(), nullable=True))
    op.add_column("durable_inbox", sa.Column("sent_at", sa.BigInteger(), nullable=True))
    op.add_column("durable_waits", sa.Column("sent_at", sa.BigInteger(), nullable=True))
    op.add_column("durable_steps", sa.Column("queue", _exact(255), nullable=True))
    op.add_column("durable_steps", sa.Column("sent_at", sa.BigInteger(), nullable=True))
    op.add_column("durable_steps", sa.Column("deadline_at", sa.BigInteger(), nullable=True))
    op.add_column("durable_steps", sa.Column("heartbeat", _long_text(), nullable=True))
    op.add_column("durable_steps", sa.Column("heartbeat_at", sa.BigInteger(), nullable=True))
    op.create_index("durable_steps_by_deadline", "durable_steps", ["deadline_at"])
    op.add_column("durable_workers", sa.Column("progress", _long_text(), nullable=True))


def downgrade() -> None:
    op.drop_column("durable_workers", "progress")
    op.drop_index("durable_steps_by_deadline", table_name="durable_steps")
    for name in ("heartbeat_at", "heartbeat", "deadline_at", "sent_at", "queue"):
        op.drop_column("durable_steps", name)
    op.drop_column("durable_waits", "sent_at")
    op.drop_column("durable_inbox", "sent_at")
    op.drop_column("durable_runs", "turn_tries")
