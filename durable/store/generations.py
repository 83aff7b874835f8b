"""
The generations of a run: runs that continue each other, of which only the last one goes on.

``first_run_id`` is the same in the rows of all of them, and ``generation`` counts from 1.  Both are NULL in the row of
a run that has not continued as new.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from .runs import Run, find, lock
from .schema import runs
from .transitions import RunStatus


def latest(tx: Connection, run_id: str) -> Run | None:
    """The last generation of a run, by the id of any of them; the run itself if it has not continued as new."""
    run = find(tx, run_id)
    if run is None or run.status != RunStatus.CONTINUED:
        return run
    last = select(runs).where(runs.c.first_run_id == run.first_run_id).order_by(runs.c.generation.desc()).limit(1)
    return Run(**tx.execute(last).mappings().one())


def lock_latest(tx: Connection, run_id: str) -> Run | None:
    """The last generation of a run, its row locked: no turn of it commits before this transaction ends."""
    row = lock(tx, run_id)
    while row is not None and row.status == RunStatus.CONTINUED:
        last = latest(tx, row.id)
        if last is None or last.id == row.id:
            break
        row = lock(tx, last.id)
    return row


def all_of(tx: Connection, run_id: str) -> list[str]:
    """The ids of a run's generations that still exist, the first one first; empty for an unknown id."""
    run = find(tx, run_id)
    if run is None:
        return []
    if run.first_run_id is None:
        return [run.id]
    found = select(runs.c.id).where(runs.c.first_run_id == run.first_run_id).order_by(runs.c.generation)
    return list(tx.execute(found).scalars())


def neighbours(tx: Connection, run: Run) -> tuple[str | None, str | None]:
    """The ids of the generations before and after this one, if there are any and they still exist."""
    if run.first_run_id is None or run.generation is None:
        return None, None
    beside = (run.generation - 1, run.generation + 1)
    found = select(runs.c.generation, runs.c.id).where(
        runs.c.first_run_id == run.first_run_id, runs.c.generation.in_(beside)
    )
    ids = {row.generation: row.id for row in tx.execute(found)}
    return ids.get(beside[0]), ids.get(beside[1])


def record_first(tx: Connection, run_id: str) -> None:
    """Make a run, which now continues as new, the first generation."""
    tx.execute(update(runs).where(runs.c.id == run_id).values(first_run_id=run_id, generation=1))
