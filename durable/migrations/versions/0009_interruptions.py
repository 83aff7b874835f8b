"""
How often the end of a process has interrupted an attempt, so that no attempt is handed back for ever.

Pre-deploy: older code neither reads nor fills what is new.
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision, phase = "0009", "0008", "pre"


def upgrade() -> None:
    op.add_column("durable_steps", sa.Column("interruptions", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("durable_steps", "interruptions")
