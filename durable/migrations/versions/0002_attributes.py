"""
Attributes of runs, and what a worker tells of itself: its queues and its clock.

Pre-deploy: older code neither reads nor fills what is new.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0002", "0001", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _exact(length):
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _long_text():
    return sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "durable_attributes",
        sa.Column("run_id", _ascii(64), nullable=False),
        sa.Column("name", _exact(256), nullable=False),
        sa.Column("value", _exact(256), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "name"),
    )
    op.create_index("durable_attributes_by_value", "durable_attributes", ["name", "value", "run_id"])
    op.add_column("durable_workers", sa.Column("queues", _long_text(), nullable=True))
    op.add_column("durable_workers", sa.Column("clock_ahead", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("durable_workers", "clock_ahead")
    op.drop_column("durable_workers", "queues")
    op.drop_index("durable_attributes_by_value", table_name="durable_attributes")
    op.drop_table("durable_attributes")
