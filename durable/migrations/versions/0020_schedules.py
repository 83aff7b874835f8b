"""
Schedules, their latest runs, and the time for which a schedule has started a run.

Pre-deploy: older code neither reads nor fills what is new.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0020", "0019", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _exact(length):
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _long():
    return sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "durable_schedules",
        sa.Column("name", _ascii(200), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("workflow", _exact(255), nullable=False),
        sa.Column("arguments", _long(), nullable=False),
        sa.Column("queue", _exact(255), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=True),
        sa.Column("timing", _long(), nullable=False),
        sa.Column("tz", _exact(64), nullable=False),
        sa.Column("overlap", _ascii(8), nullable=False),
        sa.Column("catch_up", _ascii(8), nullable=False),
        sa.Column("jitter", sa.BigInteger(), nullable=False),
        sa.Column("until_at", sa.BigInteger(), nullable=True),
        sa.Column("declared_at", sa.BigInteger(), nullable=True),
        sa.Column("absent_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("paused_at", sa.BigInteger(), nullable=True),
        sa.Column("planned_at", sa.BigInteger(), nullable=True),
        sa.Column("fire_at", sa.BigInteger(), nullable=True),
        sa.Column("is_held", sa.Boolean(), nullable=False),
        sa.Column("skipped", sa.BigInteger(), nullable=False),
    )
    op.create_index("durable_schedules_by_fire", "durable_schedules", ["fire_at"])
    op.create_index("durable_schedules_by_declaration", "durable_schedules", ["declared_at"])
    op.create_table(
        "durable_schedule_runs",
        sa.Column("schedule", _ascii(200), primary_key=True),
        sa.Column("run_id", _ascii(64), primary_key=True),
        sa.Column("planned_at", sa.BigInteger(), nullable=False),
    )
    op.add_column("durable_runs", sa.Column("scheduled_for", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("durable_runs", "scheduled_for")
    op.drop_table("durable_schedule_runs")
    op.drop_index("durable_schedules_by_declaration", table_name="durable_schedules")
    op.drop_index("durable_schedules_by_fire", table_name="durable_schedules")
    op.drop_table("durable_schedules")
