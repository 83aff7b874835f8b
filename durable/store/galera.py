"""
MariaDB Galera: what a session reads, and to which nodes a proxy leads.

A node answers before it has applied what the others have committed.  Without more, a process reads on one node that a
run, a hook or an attempt is not there, which it has been told is committed on another.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, NullPool, create_engine, text

#: Reads, updates, deletes and inserts wait until the node has applied what any node has committed before.
_SYNC_WAIT = 7
#: So many connections a doctor opens to see whether they end at several nodes.
_LOOKS = 4


def read_what_all_nodes_committed(connection: Any, _record: object) -> None:
    """SQLAlchemy's ``connect`` of MariaDB and MySQL: on a node of Galera, the session waits for the other nodes."""
    cursor = connection.cursor()
    try:
        cursor.execute("SHOW VARIABLES LIKE 'wsrep_on'")
        row = cursor.fetchone()
        if row is not None and row[1] == "ON":
            cursor.execute(f"SET SESSION wsrep_sync_wait = @@wsrep_sync_wait | {_SYNC_WAIT}")
    finally:
        cursor.close()


def nodes(engine: Engine) -> set[str]:
    """The names of the nodes at which a few new connections end; empty without Galera."""
    if engine.dialect.name not in ("mysql", "mariadb"):
        return set()
    fresh = create_engine(engine.url, poolclass=NullPool)
    found = set()
    for _ in range(_LOOKS):
        with fresh.connect() as connection:
            if connection.execute(text("SHOW VARIABLES LIKE 'wsrep_on'")).all() != [("wsrep_on", "ON")]:
                return set()
            found.add(str(connection.execute(text("SELECT @@wsrep_node_name")).scalar_one()))
    return found
