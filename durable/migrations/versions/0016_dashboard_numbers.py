"""
Numbers for the dashboard.

The versions that each worker process runs; how often a webhook has refused requests and received copies of one; and
an index from which the numbers by workflow are read without the rows of the runs.

Pre-deploy: older code leaves the columns NULL.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0016", "0015", "pre"


def _exact(length):
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("durable_workers", sa.Column("versions", _exact(255), nullable=True))
    op.add_column("durable_hooks", sa.Column("refused", sa.BigInteger(), nullable=True))
    op.add_column("durable_hooks", sa.Column("refused_at", sa.BigInteger(), nullable=True))
    op.add_column("durable_hooks", sa.Column("refusal", _exact(255), nullable=True))
    op.add_column("durable_requests", sa.Column("duplicates", sa.BigInteger(), nullable=True))
    op.create_index("durable_hooks_by_refusal", "durable_hooks", ["refused_at"])
    op.drop_index("durable_runs_by_end", table_name="durable_runs")
    op.create_index("durable_runs_by_end", "durable_runs", ["completed_at", "id", "name", "status", "started_at"])


def downgrade() -> None:
    op.drop_index("durable_runs_by_end", table_name="durable_runs")
    op.create_index("durable_runs_by_end", "durable_runs", ["completed_at", "id"])
    op.drop_index("durable_hooks_by_refusal", table_name="durable_hooks")
    op.drop_column("durable_requests", "duplicates")
    for column in ("refusal", "refused_at", "refused"):
        op.drop_column("durable_hooks", column)
    op.drop_column("durable_workers", "versions")
