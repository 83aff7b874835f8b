"""The installation: the processes of one database.  Its messages carry its id, so that no other one runs them."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from .schema import installation

#: The longest name of a queue that is kept.
_QUEUE_LENGTH = 255


def read(tx: Connection) -> str | None:
    """The installation's id."""
    found: str | None = tx.execute(select(installation.c.name)).scalar_one_or_none()
    return found


def note_foreign(tx: Connection, queue: str, now: int) -> None:
    """Record that a worker has taken a message of another installation from a queue."""
    tx.execute(update(installation).values(foreign_at=now, foreign_queue=queue[:_QUEUE_LENGTH]))


def foreign_queue(tx: Connection, since: int) -> str | None:
    """The queue from which a worker has last taken a message of another installation; None: none has since then."""
    found: str | None = tx.execute(
        select(installation.c.foreign_queue).where(installation.c.foreign_at >= since)
    ).scalar_one_or_none()
    return found
