"""
Limits of workflows: their keys, and the runs that wait for them.

Pre-deploy: older code does not know the tables.  It begins the runs of workflows with limits that it starts at once,
and frees no slot of a run that it ends: the sweep of newer code finds it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0027", "0026", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _exact(length):
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("durable_limits", sa.Column("kind", _ascii(16)))
    op.create_table(
        "durable_run_limit_keys",
        sa.Column("name", _exact(100), primary_key=True),
        sa.Column("key", _exact(255), primary_key=True),
        sa.Column("recovers_at", sa.BigInteger(), nullable=False),
        sa.Column("next_check_at", sa.BigInteger()),
        sa.Column("waiting_run_id", _ascii(64)),
        sa.Column("waits_since", sa.BigInteger()),
    )
    op.create_index("durable_run_limit_keys_by_check", "durable_run_limit_keys", ["next_check_at"])
    op.create_table(
        "durable_run_limits",
        sa.Column("run_id", _ascii(64), primary_key=True),
        sa.Column("name", _exact(100), primary_key=True),
        sa.Column("key", _exact(255), nullable=False),
        sa.Column("state", _ascii(16), nullable=False),
        sa.Column("ready_at", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("on_conflict", _ascii(16), nullable=False),
    )
    op.create_index("durable_run_limits_by_key", "durable_run_limits", ["name", "key", "state", "ready_at"])
    op.create_index("durable_run_limits_in_line", "durable_run_limits", ["name", "key", "state", "level", "ready_at"])
    op.create_index("durable_run_limits_by_state", "durable_run_limits", ["state", "ready_at"])


def downgrade() -> None:
    op.drop_table("durable_run_limits")
    op.drop_table("durable_run_limit_keys")
    op.drop_column("durable_limits", "kind")
