"""
What is paused: workflows, queues and receivers by name, and the causes for which runs are.

``pause_runs.py`` pauses runs and lets them go on.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, update

from .schema import paused_runs, pauses, runs
from .transitions import ENDED
from .upsert import upsert

WORKFLOW, QUEUE, RECEIVER = "workflow", "queue", "receiver"
#: What can be paused by name.
KINDS = (WORKFLOW, QUEUE, RECEIVER)

#: The kind of a run's own pause, and of steps that wait for their queue while the run goes on.
OWN, STEPS = "run", "steps"
#: The kinds of causes that pause a run.
OF_RUNS = (OWN, WORKFLOW, QUEUE)


class Cause(NamedTuple):
    """Why a run is paused: a kind, and the name of the workflow or queue."""

    kind: str
    name: str = ""

    @property
    def text(self) -> str | None:
        """``workflow checkout``; None for a run's own pause."""
        return None if self.kind == OWN else f"{self.kind} {self.name}"


OWN_PAUSE = Cause(OWN)
#: The cause of runs whose own pause is over, and which go on batch by batch.  Its row in ``pauses`` is always resuming.
RESUMING = Cause(OWN, "resuming")


@dataclass(frozen=True, slots=True)
class Pause:
    """A paused workflow, queue or receiver; ``resuming_at`` is set while what it holds goes on, batch by batch."""

    kind: str
    name: str
    paused_at: int
    reason: str | None
    resuming_at: int | None

    @property
    def cause(self) -> Cause:
        return Cause(self.kind, self.name)


_ROW = select(pauses.c.kind, pauses.c.name, pauses.c.paused_at, pauses.c.reason, pauses.c.resuming_at)


def active(tx: Connection) -> list[Cause]:
    """All that is paused by name now; there are few."""
    rows = tx.execute(select(pauses.c.kind, pauses.c.name).where(pauses.c.resuming_at.is_(None)))
    return [Cause(*row) for row in rows]


def every(tx: Connection, limit: int) -> list[Pause]:
    """What is paused by name, and what is being resumed; the oldest first."""
    order = (pauses.c.paused_at, pauses.c.kind, pauses.c.name)
    return [Pause(*row) for row in tx.execute(_ROW.order_by(*order).limit(limit))]


def begin(tx: Connection, cause: Cause, reason: str | None, now: int, check_at: int | None) -> bool:
    """
    Note that something is paused from now on.

    Args:
        check_at: When the sweep pauses what a process has begun that did not know of it yet.

    Returns:
        False when it was paused already; then nothing changes.
    """
    found = tx.execute(select(pauses.c.resuming_at).where(_is(cause)).with_for_update()).one_or_none()
    values = {"paused_at": now, "reason": reason, "resuming_at": None, "next_check_at": check_at}
    if found is None:
        tx.execute(insert(pauses), {**cause._asdict(), **values})
    elif found.resuming_at is not None:
        tx.execute(update(pauses).where(_is(cause)).values(values))
    return found is None or found.resuming_at is not None


def begin_resume(tx: Connection, cause: Cause, now: int) -> bool:
    """Note that it is paused no longer, and that the sweep resumes what it holds; False when it is not paused."""
    mine = update(pauses).where(_is(cause), pauses.c.resuming_at.is_(None))
    return tx.execute(mine.values(resuming_at=now, next_check_at=now)).rowcount == 1


def due(tx: Connection, now: int) -> list[Pause]:
    """What the sweep has to do something for now."""
    query = _ROW.where(pauses.c.next_check_at <= now).order_by(pauses.c.next_check_at)
    return [Pause(*row) for row in tx.execute(query)]


def resume_in_turn(tx: Connection, run_id: str, now: int) -> bool:
    """
    End a run's own pause, and let the run wait until ``RESUMING`` lets it go on; its row is locked.

    Returns:
        False when it was not paused by itself.
    """
    own = (paused_runs.c.run_id == run_id, paused_runs.c.kind == OWN)
    query = select(paused_runs.c.paused_at, paused_runs.c.reason).where(*own, paused_runs.c.name == OWN_PAUSE.name)
    found = tx.execute(query).mappings().one_or_none()
    if found is None:
        return False
    tx.execute(delete(paused_runs).where(*own))
    tx.execute(insert(paused_runs), {"run_id": run_id, **RESUMING._asdict(), **found})
    row = {**RESUMING._asdict(), "paused_at": now, "resuming_at": now, "next_check_at": now}
    # A change, so that ``remove`` leaves the row of which the sweep has not seen this run.
    upsert(tx, pauses, [row], lambda _: {"resuming_at": pauses.c.resuming_at + 1})
    return True


def check_at(tx: Connection, pause: Pause, at: int | None) -> None:
    """Set when the sweep looks again, unless it was paused or resumed meanwhile."""
    is_resuming = and_(_is(pause.cause), pauses.c.resuming_at.is_not(None))
    is_same = _is_unchanged(pause) if pause.resuming_at is None else is_resuming
    tx.execute(update(pauses).where(is_same).values(next_check_at=at))


def remove(tx: Connection, pause: Pause) -> None:
    """Delete the row of a pause that holds nothing any more, unless it was paused or resumed again meanwhile."""
    tx.execute(delete(pauses).where(_is_unchanged(pause)))


def is_active(tx: Connection, cause: Cause) -> bool:
    """Whether it is paused; no process can begin to resume it before this transaction ends."""
    query = select(pauses.c.kind).where(_is(cause), pauses.c.resuming_at.is_(None))
    return tx.execute(query.with_for_update(read=True)).first() is not None


def _is(cause: Cause) -> ColumnElement[bool]:
    return and_(pauses.c.kind == cause.kind, pauses.c.name == cause.name)


def _is_unchanged(pause: Pause) -> ColumnElement[bool]:
    is_same = pauses.c.resuming_at.is_(None) if pause.resuming_at is None else pauses.c.resuming_at == pause.resuming_at
    return and_(_is(pause.cause), is_same)


# Runs


def causes_of(tx: Connection, run_ids: Collection[str]) -> dict[str, list[Pause]]:
    """Why these runs are paused, by run; the oldest cause first."""
    found: dict[str, list[Pause]] = {}
    columns = (paused_runs.c.run_id, paused_runs.c.kind, paused_runs.c.name, paused_runs.c.paused_at)
    mine = (paused_runs.c.run_id.in_(run_ids), paused_runs.c.kind.in_(OF_RUNS), paused_runs.c.released_at.is_(None))
    query = select(*columns, paused_runs.c.reason).where(*mine).order_by(paused_runs.c.paused_at, paused_runs.c.kind)
    for row in tx.execute(query) if run_ids else ():
        found.setdefault(row.run_id, []).append(Pause(row.kind, row.name, row.paused_at, row.reason, None))
    return found


def is_paused() -> ColumnElement[bool]:
    """Whether a run is paused.  By the list of paused runs: most runs are not."""
    paused = select(paused_runs.c.run_id).where(paused_runs.c.kind.in_(OF_RUNS), paused_runs.c.released_at.is_(None))
    return runs.c.id.in_(paused)


def runs_of(tx: Connection, cause: Cause, limit: int) -> list[str]:
    """The runs that have this cause, in the order of their ids; at most *limit*."""
    query = select(paused_runs.c.run_id).where(paused_runs.c.kind == cause.kind, paused_runs.c.name == cause.name)
    return list(tx.execute(query.order_by(paused_runs.c.run_id).limit(limit)).scalars())


def count_runs(tx: Connection, cause: Cause, limit: int) -> int:
    """How many runs have this cause, counted up to *limit*."""
    some = select(paused_runs.c.run_id).where(paused_runs.c.kind == cause.kind, paused_runs.c.name == cause.name)
    return int(tx.execute(select(func.count()).select_from(some.limit(limit).subquery())).scalar_one())


def count_paused_runs(tx: Connection, limit: int) -> int:
    """How many runs are paused, counted up to *limit*."""
    mine = (paused_runs.c.kind.in_(OF_RUNS), paused_runs.c.released_at.is_(None))
    some = select(paused_runs.c.run_id).where(*mine).distinct().limit(limit)
    return int(tx.execute(select(func.count()).select_from(some.subquery())).scalar_one())


def oldest_paused_run(tx: Connection) -> tuple[str, int] | None:
    """The run that was paused by itself for the longest time, and since when."""
    own = (paused_runs.c.kind == OWN, paused_runs.c.name == OWN_PAUSE.name)
    query = select(paused_runs.c.run_id, paused_runs.c.paused_at).where(*own)
    row = tx.execute(query.order_by(paused_runs.c.paused_at, paused_runs.c.run_id).limit(1)).one_or_none()
    return None if row is None else (row.run_id, row.paused_at)


def open_runs(
    tx: Connection, cause: Cause, *, status: str, has_default: bool, after: tuple[int, str], upto: int, limit: int
) -> list[tuple[int, str]]:
    """
    The next page of the runs with a status that a cause is for, oldest first, each as ``(created_at, id)``.

    Args:
        has_default: Whether the queue of the cause is that of runs without a queue of their own.
        after: The last pair of the page before.
        upto: Only runs that were created until then.
    """
    assert status not in ENDED
    at, run_id = after
    is_of = runs.c.name == cause.name
    if cause.kind == QUEUE:
        is_of = or_(runs.c.queue == cause.name, runs.c.queue.is_(None)) if has_default else runs.c.queue == cause.name
    page = (runs.c.created_at >= at, runs.c.created_at <= upto, or_(runs.c.created_at > at, runs.c.id > run_id))
    query = select(runs.c.created_at, runs.c.id).where(runs.c.status == status, is_of, *page)
    return [(row.created_at, row.id) for row in tx.execute(query.order_by(runs.c.created_at, runs.c.id).limit(limit))]
