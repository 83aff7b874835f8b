"""
The order in the lines of limits: priorities, and turns between runs.  The limits that each worker declares.

Pre-deploy: older code leaves the defaults, with which its steps come first within the lowest priority.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0025", "0024", "pre"

_LINE = ["name", "key", "state", "level"]


def _exact(length):
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _long():
    return sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("durable_step_limits", sa.Column("level", sa.SmallInteger(), nullable=False, server_default="9"))
    op.add_column("durable_step_limits", sa.Column("place", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("durable_step_limits", sa.Column("owner", _exact(255), nullable=True))
    op.create_index("durable_step_limits_in_line", "durable_step_limits", [*_LINE, "place", "ready_at"])
    op.create_index("durable_step_limits_by_owner", "durable_step_limits", [*_LINE, "owner", "place"])
    op.add_column("durable_workers", sa.Column("limits", _long(), nullable=True))


def downgrade() -> None:
    op.drop_column("durable_workers", "limits")
    op.drop_index("durable_step_limits_by_owner", table_name="durable_step_limits")
    op.drop_index("durable_step_limits_in_line", table_name="durable_step_limits")
    op.drop_column("durable_step_limits", "owner")
    op.drop_column("durable_step_limits", "place")
    op.drop_column("durable_step_limits", "level")
