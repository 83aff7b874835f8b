"""
What crosses from the caller of ``start`` into a run's steps: trace context, baggage and context variables.

Pre-deploy: older code neither reads nor fills what is new.
"""

import sqlalchemy as sa
from alembic import op

from durable.store.schema import long_text

revision, down_revision, phase = "0013", "0012", "pre"


def upgrade() -> None:
    op.add_column("durable_runs", sa.Column("trace_context", long_text(), nullable=True))


def downgrade() -> None:
    op.drop_column("durable_runs", "trace_context")
