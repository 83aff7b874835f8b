"""
The schema's history (Alembic): upgrade, and look which revision a database has.

Files, in import order::

    versions/  one file for each revision
    env.py     what Alembic runs on the connection that it is given
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from ..errors import ConfigurationError
from ..store import VERSION_TABLE

#: What to do about a PostgreSQL database of another encoding.
ENCODING_FIX = (
    "Create a database with CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0, copy your data into it, and point"
    " DURABLE_DATABASE_URL at it: the encoding of a database cannot be changed."
)


def upgrade(tx: Connection) -> None:
    """Bring the database behind *tx* to the newest revision; ConfigurationError when it cannot hold every text."""
    encoding = unfit_encoding(tx)
    if encoding is not None:
        raise ConfigurationError(
            f"The database {tx.engine.url.database!r} has the encoding {encoding}, which does not hold every text."
            f"  {ENCODING_FIX}"
        )
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = tx
    command.upgrade(config, "head")


def unfit_encoding(tx: Connection) -> str | None:
    """
    The encoding of a PostgreSQL database that is not UTF8; None where every text can be held.

    In MariaDB our columns name their character set, and SQLite knows only Unicode.
    """
    if tx.dialect.name != "postgresql":
        return None
    encoding = str(tx.exec_driver_sql("SHOW server_encoding").scalar_one())
    return None if encoding == "UTF8" else encoding


def revision(tx: Connection) -> str | None:
    """The revision in the database, None when durable has no tables there."""
    context = MigrationContext.configure(tx, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()
