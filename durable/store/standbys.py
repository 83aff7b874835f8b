"""Whether a PostgreSQL primary waits for its standbys."""

from __future__ import annotations

from sqlalchemy import Connection, text

_QUERY = text(
    "SELECT count(*) FROM pg_stat_replication"
    " WHERE coalesce(state, 'streaming') = 'streaming' AND current_setting('synchronous_standby_names') = ''"
)


def unawaited(tx: Connection) -> int | None:
    """How many standbys a primary has, if its commits wait for none of them; None on another database."""
    return int(tx.execute(_QUERY).scalar_one()) if tx.dialect.name == "postgresql" else None
