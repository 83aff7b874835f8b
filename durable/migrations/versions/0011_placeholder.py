"""Nothing: the place of a migration that another branch adds."""

revision, down_revision, phase = "0011", "0010", "pre"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
