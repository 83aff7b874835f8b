"""Nothing: the place of a migration that another branch adds."""

revision, down_revision, phase = "0013", "0012", "pre"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
