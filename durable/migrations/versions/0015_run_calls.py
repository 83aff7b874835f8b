"""
When a mistake in the code blocked a run, and calls of ``on_run_failed`` and ``on_run_blocked`` that are due.

Pre-deploy: older code leaves the column NULL, and does not know the table.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0015", "0014", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("durable_runs", sa.Column("mistake_at", sa.BigInteger(), nullable=True))
    op.create_table(
        "durable_run_calls",
        sa.Column("run_id", _ascii(64), primary_key=True),
        sa.Column("status", _ascii(16), primary_key=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_send_at", sa.BigInteger(), nullable=False),
        sa.Column("sends", sa.Integer(), nullable=False),
    )
    op.create_index("durable_run_calls_by_send", "durable_run_calls", ["next_send_at"])


def downgrade() -> None:
    op.drop_table("durable_run_calls")
    op.drop_column("durable_runs", "mistake_at")
