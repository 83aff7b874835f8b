"""
Limits of steps: their numbers, their keys, and the steps that wait for them.

Pre-deploy: older code does not know the tables, and sends the steps that its own turns create at once.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0022", "0021", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _exact(length):
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "durable_limits",
        sa.Column("name", _exact(100), primary_key=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("set_n", sa.Integer()),
        sa.Column("per", sa.BigInteger()),
        sa.Column("burst", sa.Integer()),
    )
    op.create_table(
        "durable_limit_keys",
        sa.Column("name", _exact(100), primary_key=True),
        sa.Column("key", _exact(255), primary_key=True),
        sa.Column("recovers_at", sa.BigInteger(), nullable=False),
        sa.Column("paused_until", sa.BigInteger()),
        sa.Column("next_check_at", sa.BigInteger()),
    )
    op.create_index("durable_limit_keys_by_check", "durable_limit_keys", ["next_check_at"])
    op.create_table(
        "durable_step_limits",
        sa.Column("run_id", _ascii(64), primary_key=True),
        sa.Column("op_id", _ascii(255), primary_key=True),
        sa.Column("name", _exact(100), primary_key=True),
        sa.Column("key", _exact(255), nullable=False),
        sa.Column("state", _ascii(16), nullable=False),
        sa.Column("ready_at", sa.BigInteger(), nullable=False),
    )
    op.create_index("durable_step_limits_by_key", "durable_step_limits", ["name", "key", "state", "ready_at"])


def downgrade() -> None:
    op.drop_table("durable_step_limits")
    op.drop_table("durable_limit_keys")
    op.drop_table("durable_limits")
