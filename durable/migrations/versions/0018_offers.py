"""
Offered steps: their messages are not sent, since processes that are at work on the run take them.

Pre-deploy: older code leaves the column NULL, and sends the message of an offered step once its time is over.
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision, phase = "0018", "0017", "pre"


def upgrade() -> None:
    op.add_column("durable_steps", sa.Column("offered_seq", sa.BigInteger(), nullable=True))
    offered = sa.text("offered_seq IS NOT NULL")
    op.create_index(
        "durable_steps_offered",
        "durable_steps",
        ["run_id", "queue", "offered_seq"],
        postgresql_where=offered,
        sqlite_where=offered,
    )


def downgrade() -> None:
    op.drop_index("durable_steps_offered", "durable_steps")
    op.drop_column("durable_steps", "offered_seq")
