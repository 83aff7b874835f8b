"""The schema's history (Alembic), and the two things done with it: upgrade, and look which revision is there."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from ..schema import VERSION_TABLE


def upgrade(tx: Connection) -> None:
    """Bring the database behind *tx* to the newest revision."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = tx
    command.upgrade(config, "head")


def revision(tx: Connection) -> str | None:
    """The revision in the database, None when durable has no tables there."""
    context = MigrationContext.configure(tx, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()
