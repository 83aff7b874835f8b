"""Do something to the child runs of a run, and to theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from ..engine import Engine
from ..store import generations, runs

#: How many runs one transaction is for.
BATCH = 100


def act_below(engine: Engine, run_id: str, act: Callable[[Connection, Sequence[str]], Sequence[str]]) -> int:
    """
    Do something to the open child runs of a run, and to theirs; return to how many it was done.

    Parents come first: one that is paused calls no more children.
    """
    done, parents = 0, [run_id]
    while parents:
        with engine.store.read() as tx:
            below = runs.open_children_of(tx, parents)
        parents = []
        for first in range(0, len(below), BATCH):
            batch = below[first : first + BATCH]

            def act_on_latest(tx: Connection, batch: Sequence[str] = batch) -> tuple[list[str], int]:
                rows = [row for each in batch if (row := generations.lock_latest(tx, each)) is not None]
                ids = [row.id for row in rows if not row.ended]
                return ids, len(act(tx, ids))

            ids, count = engine.store.write(act_on_latest)
            parents += ids
            done += count
    return done
