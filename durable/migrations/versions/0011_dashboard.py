"""Placeholder."""

revision, down_revision, phase = "0011", "0010", "pre"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
