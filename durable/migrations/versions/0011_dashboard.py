"""
What the dashboard needs: a table of what people did to runs, and indexes for its lists.

Attributes get the time at which their run was created, so that an index has the runs with an attribute in order.

Pre-deploy: older code neither reads nor fills what is new.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0011", "0010", "pre"


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
        "durable_audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("run_id", _ascii(64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("action", _ascii(32), nullable=False),
        sa.Column("actor", _exact(255), nullable=True),
        sa.Column("detail", _long(), nullable=True),
        sa.Column("outcome", _long(), nullable=True),
    )
    op.create_index("durable_audit_by_run", "durable_audit", ["run_id", "id"])
    op.create_index("durable_runs_by_status_and_name", "durable_runs", ["status", "name", "created_at", "id"])
    op.create_index("durable_requests_by_age", "durable_requests", ["received_at", "id"])
    op.add_column("durable_attributes", sa.Column("created_at", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE durable_attributes SET created_at ="
        " COALESCE((SELECT r.created_at FROM durable_runs r WHERE r.id = durable_attributes.run_id), 0)"
    )
    op.drop_index("durable_attributes_by_value", table_name="durable_attributes")
    op.create_index("durable_attributes_by_value", "durable_attributes", ["name", "value", "created_at", "run_id"])


def downgrade() -> None:
    op.drop_index("durable_attributes_by_value", table_name="durable_attributes")
    op.create_index("durable_attributes_by_value", "durable_attributes", ["name", "value", "run_id"])
    op.drop_column("durable_attributes", "created_at")
    op.drop_index("durable_requests_by_age", table_name="durable_requests")
    op.drop_index("durable_runs_by_status_and_name", table_name="durable_runs")
    op.drop_table("durable_audit")
