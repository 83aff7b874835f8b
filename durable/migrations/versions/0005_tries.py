"""
What is known of the tries of a turn: who, when, and how they ended.

Pre-deploy: older code neither reads nor fills what is new.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0005", "0004", "pre"


def upgrade() -> None:
    text = sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
    op.add_column("durable_runs", sa.Column("turn_tried", text, nullable=True))


def downgrade() -> None:
    op.drop_column("durable_runs", "turn_tried")
