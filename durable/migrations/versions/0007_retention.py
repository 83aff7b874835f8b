"""
Runs are found by their end, and what names another run's request is noted: old runs can be deleted.

Pre-deploy: older code notes nothing, so prune once all processes are of this release.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0007", "0006", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    op.create_index("durable_runs_by_end", "durable_runs", ["completed_at", "id"])
    op.create_table(
        "durable_references",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("run_id", _ascii(64), nullable=False),
        sa.Column("owner_run_id", _ascii(64), nullable=False),
    )
    op.create_index("durable_references_by_run", "durable_references", ["run_id", "owner_run_id"])
    op.create_index("durable_references_by_owner", "durable_references", ["owner_run_id", "run_id"])


def downgrade() -> None:
    op.drop_table("durable_references")
    op.drop_index("durable_runs_by_end", table_name="durable_runs")
