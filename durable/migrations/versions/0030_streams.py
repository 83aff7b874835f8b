"""
Streams: numbered items that runs emit.

Pre-deploy: older code does not know the tables.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0030", "0029", "pre"


def upgrade() -> None:
    def ascii_key(length: int) -> sa.String:
        exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
        return sa.String(length).with_variant(exact, "mysql", "mariadb")

    name = sa.String(255).with_variant(
        mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )
    text = sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
    op.create_table(
        "durable_streams",
        sa.Column("run_id", ascii_key(64), primary_key=True),
        sa.Column("name", name, primary_key=True),
        sa.Column("next_number", sa.BigInteger(), nullable=False),
        sa.Column("keep", sa.BigInteger()),
        sa.Column("step_run_id", ascii_key(64)),
        sa.Column("step_id", ascii_key(255)),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger()),
    )
    op.create_table(
        "durable_stream_items",
        sa.Column("run_id", ascii_key(64), primary_key=True),
        sa.Column("name", name, primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("step_id", ascii_key(255)),
        sa.Column("attempt", sa.Integer()),
        sa.Column("discards", sa.Boolean(), nullable=False),
        sa.Column("item", text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("durable_stream_items")
    op.drop_table("durable_streams")
