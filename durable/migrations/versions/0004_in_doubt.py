"""
How attempts are delivered, and those of which nobody knows what became of them.

Pre-deploy: older code neither reads nor fills what is new.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0004", "0003", "pre"


def upgrade() -> None:
    ascii_key = sa.String(16).with_variant(
        mysql.VARCHAR(16, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
    )
    long_text = sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
    op.add_column("durable_steps", sa.Column("semantics", ascii_key, nullable=True))
    op.add_column("durable_steps", sa.Column("doubt", long_text, nullable=True))


def downgrade() -> None:
    op.drop_column("durable_steps", "doubt")
    op.drop_column("durable_steps", "semantics")
