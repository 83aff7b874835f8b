"""
The schema's migrations (Alembic): upgrade a database, and read its revision.

Code works on the schema of its own revision and on newer ones, so that old and new processes run side by side during a
deploy.  A migration therefore only adds: it is ``phase = "pre"``, to be run before the new code starts.

On PostgreSQL ``durable_events`` may be partitioned by ``run_id`` (docs/how-to/partitions.md).  Then it takes no storage
parameters and no index that is made concurrently, and a unique index needs ``run_id``.

Files, in import order::

    versions/  one file for each revision
    env.py     runs the migrations on a given connection
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from ..errors import ConfigurationError
from ..store import REVISION, VERSION_TABLE

#: A migration may take longer than the role's statements, and imports modules between two of them.  One statement: the
#: session could be cut between two.
_WITHOUT_TIMEOUTS = text(
    "SELECT set_config('idle_in_transaction_session_timeout', '0', true), set_config('statement_timeout', '0', true)"
)

#: How to replace a PostgreSQL database with another encoding.
ENCODING_FIX = (
    "Create a database with CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0, copy your data into it, and point"
    " DURABLE_DATABASE_URL at it: the encoding of a database cannot be changed."
)


def upgrade(tx: Connection) -> bool:
    """
    Upgrade the database of *tx* by one revision, or an empty one to the newest; one process at a time.

    Each revision is a transaction of its own, so that a migration holds few locks, and not for long: runs go on
    meanwhile, and the statements of several revisions and of workers would wait for each other in a circle.

    Returns:
        Whether there is another revision to upgrade to.

    Raises:
        ConfigurationError: The encoding of the database is not UTF8.
    """
    if tx.dialect.name == "postgresql":
        tx.execute(_WITHOUT_TIMEOUTS)
        tx.execute(text("SELECT pg_advisory_xact_lock(hashtext('durable_migrate'))"))
    encoding = unfit_encoding(tx)
    if encoding is not None:
        raise ConfigurationError(
            f"The database {tx.engine.url.database!r} has the encoding {encoding}, which cannot store every text."
            f"  {ENCODING_FIX}"
        )
    found = revision(tx)
    if suffices(found):
        return False
    # Alembic takes longer to import than most commands take to run, and only migrations need it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = tx
    command.upgrade(config, "head" if found is None else "+1")
    return not suffices(revision(tx))


def unfit_encoding(tx: Connection) -> str | None:
    """
    The encoding of a PostgreSQL database if it is not UTF8; None if the database can store every text.

    On MySQL and MariaDB our columns have their own character set, and SQLite stores only Unicode.
    """
    if tx.dialect.name != "postgresql":
        return None
    encoding = str(tx.exec_driver_sql("SHOW server_encoding").scalar_one())
    return None if encoding == "UTF8" else encoding


def suffices(found: str | None) -> bool:
    """Whether this code works on a schema of the revision *found*: its own or a newer one."""
    return found is not None and found >= REVISION


def revision(tx: Connection) -> str | None:
    """The revision of the database; None when it has no tables of durable."""
    if not inspect(tx).has_table(VERSION_TABLE):
        return None
    found: str | None = tx.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar_one_or_none()
    return found
