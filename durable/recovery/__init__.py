"""
Recovery: finds in SQL what crashes and lost messages have left, and sends it again.

Each process that runs steps has one housekeeping thread.  One process at a time holds the lease and sweeps.

Files, in import order::

    lost_messages.py    which messages are lost, and which only wait in a long queue
    orphans.py          deletes large values that no run refers to
    prune.py            deletes ended runs after their retention
    broker_sentinel.py  finds out that the broker has lost its messages
    sweep.py            sends what is overdue again, and reaps dead workers
    sweep_lease.py      which process sweeps
    housekeeping.py     the thread that sends heartbeats and sweeps
"""

from .housekeeping import Housekeeping
from .sweep_lease import LEASE

__all__ = [
    "LEASE",
    "Housekeeping",
]
