"""The schema at an older revision, and what a migrated schema differs in from ``store/schema``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from durable import migrations
from durable.store.schema import VERSION_TABLE, metadata


def upgrade_to(tx: sa.Connection, revision: str) -> None:
    """Bring a database to a revision, in the caller's transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = tx
    command.upgrade(config, revision)


def differences(tx: sa.Connection, is_compared: Callable[[str], bool]) -> list[Any]:
    """What Alembic would change to come to ``store/schema``; of other tables than those compared, nothing."""
    options = {
        "version_table": VERSION_TABLE,
        "include_name": lambda name, kind, _: kind != "table" or is_compared(name),
    }
    found: list[Any] = compare_metadata(MigrationContext.configure(tx, opts=options), metadata)
    return found
