"""
Recovery: what crashes and lost messages leave is found in SQL and sent again.

Each process that runs steps has one housekeeping thread.  One process at a time holds the lease and sweeps.

Files, in import order::

    lost_messages.py  which messages are lost, and which only wait their turn
    orphans.py        deletes large values that no run refers to
    prune.py          deletes ended runs after their retention
    broker_sentinel.py finds out that the broker has lost its memory
    sweep.py          sends again what is overdue, and reaps dead workers
    housekeeping.py   the thread that sends heartbeats and sweeps
"""

from .housekeeping import Housekeeping

__all__ = [
    "Housekeeping",
]
