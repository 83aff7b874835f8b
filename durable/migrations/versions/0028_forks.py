"""
Forks: which run each was forked from.

Pre-deploy: older code leaves the column NULL, and does not know the events of a fork.  Fork runs once all workers have
this release.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0028", "0027", "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("durable_runs", sa.Column("forked_from", _ascii(64), nullable=True))
    op.create_index("durable_runs_by_origin", "durable_runs", ["forked_from", "created_at"])


def downgrade() -> None:
    op.drop_index("durable_runs_by_origin", table_name="durable_runs")
    op.drop_column("durable_runs", "forked_from")
