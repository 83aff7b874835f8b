"""
The broker's sentinel, and whether the broker's messages are being sent again.

One row, since all applications of a database share one sentinel (see recovery/sentinel.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from .schema import broker_sentinel, leases

#: The row of the leases in which releases before revision 0010 keep the sentinel, and their "nothing is lost".
#: Written too as long as such a process may share the database with this one, in a rolling deploy; remove it with the
#: first release after 0.1.
_OLD_NAME = "sentinel"
_OLD_NEVER = 2**62

_ID = 1


@dataclass(frozen=True, slots=True)
class BrokerSentinel:
    """
    The sentinel's row.

    Attributes:
        name: Part of the name of the queue that has the sentinel.
        lost_at: When the broker lost its messages; None once every message sent until then is marked as unsent.
    """

    name: str
    lost_at: int | None


def read(tx: Connection) -> BrokerSentinel | None:
    """The sentinel; None when there was never one in this database."""
    row = tx.execute(select(broker_sentinel.c.name, broker_sentinel.c.lost_at)).one_or_none()
    return None if row is None else BrokerSentinel(row.name, row.lost_at)


def write(tx: Connection, sentinel: BrokerSentinel) -> None:
    """Replace the sentinel."""
    columns = {"name": sentinel.name, "lost_at": sentinel.lost_at}
    if tx.execute(update(broker_sentinel).values(columns)).rowcount == 0:
        tx.execute(insert(broker_sentinel).values(id=_ID, **columns))
    old = {"owner": sentinel.name, "expires_at": _OLD_NEVER if sentinel.lost_at is None else sentinel.lost_at}
    if tx.execute(update(leases).where(leases.c.name == _OLD_NAME).values(old)).rowcount == 0:
        tx.execute(insert(leases).values(name=_OLD_NAME, token=1, **old))
