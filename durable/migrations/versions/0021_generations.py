"""
Generations of a run: which run they belong to, which of them each is, and who has a request that was handed over.

Pre-deploy: older code leaves the columns NULL.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0021", "0020", "pre"


def _ascii(length):
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
    )


def upgrade() -> None:
    op.add_column("durable_runs", sa.Column("first_run_id", _ascii(64), nullable=True))
    op.add_column("durable_runs", sa.Column("generation", sa.Integer(), nullable=True))
    op.add_column("durable_requests", sa.Column("handed_to", _ascii(64), nullable=True))
    op.create_index("durable_runs_by_generation", "durable_runs", ["first_run_id", "generation"], unique=True)
    op.create_index("durable_requests_by_handed_to", "durable_requests", ["handed_to"])


def downgrade() -> None:
    op.drop_index("durable_requests_by_handed_to", table_name="durable_requests")
    op.drop_index("durable_runs_by_generation", table_name="durable_runs")
    op.drop_column("durable_requests", "handed_to")
    op.drop_column("durable_runs", "generation")
    op.drop_column("durable_runs", "first_run_id")
