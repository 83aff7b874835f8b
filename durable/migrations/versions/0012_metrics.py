"""Placeholder."""

revision, down_revision, phase = "0012", "0011", "pre"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
