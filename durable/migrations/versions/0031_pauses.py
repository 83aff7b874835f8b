"""
Pauses: which workflows, queues, receivers and runs are paused, and by what.

Pre-deploy: older code does not know the tables and columns, and goes on with paused runs.  Pause runs once all workers
have this release.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0031", "0030", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _exact(length):
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _text():
    return sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("durable_runs", sa.Column("paused_at", sa.BigInteger(), nullable=True))
    op.add_column("durable_steps", sa.Column("paused_at", sa.BigInteger(), nullable=True))
    op.create_table(
        "durable_pauses",
        sa.Column("kind", _ascii(16), primary_key=True),
        sa.Column("name", _exact(255), primary_key=True),
        sa.Column("paused_at", sa.BigInteger(), nullable=False),
        sa.Column("reason", _text()),
        sa.Column("resuming_at", sa.BigInteger()),
        sa.Column("next_check_at", sa.BigInteger()),
    )
    op.create_index("durable_pauses_by_check", "durable_pauses", ["next_check_at"])
    op.create_table(
        "durable_paused_runs",
        sa.Column("run_id", _ascii(64), primary_key=True),
        sa.Column("kind", _ascii(16), primary_key=True),
        sa.Column("name", _exact(255), primary_key=True),
        sa.Column("paused_at", sa.BigInteger(), nullable=False),
        sa.Column("reason", _text()),
        sa.Column("released_at", sa.BigInteger()),
    )
    op.create_index("durable_paused_runs_by_cause", "durable_paused_runs", ["kind", "name", "run_id"])
    op.create_index("durable_paused_runs_by_age", "durable_paused_runs", ["paused_at", "run_id"])


def downgrade() -> None:
    op.drop_table("durable_paused_runs")
    op.drop_table("durable_pauses")
    op.drop_column("durable_steps", "paused_at")
    op.drop_column("durable_runs", "paused_at")
