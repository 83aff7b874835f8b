"""
Retention: deletes runs that ended long ago, in batches, while everything else goes on.

A run that has ended does not change any more, so only its age matters, and whether something still refers to it.  A run
is deleted as a whole: its events, hooks, requests with their answers and dedupe keys, payloads and attributes in one
transaction, and after the commit its payloads outside of the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from sqlalchemy import Connection

from .. import duration
from ..engine import Engine
from ..sandbox import log_records
from ..store import PayloadStoreError, reason, received, retention
from . import orphans

log = log_records.get("durable.prune")

#: The most runs that one transaction deletes.
RUNS = 100
#: About how many events one transaction deletes; a single run may have more.
EVENTS = 5_000


class Place(NamedTuple):
    """A position in the list of ended runs: the end and the id of the last run that was checked."""

    ended_at: int
    run_id: str


#: Before the first ended run.
START = Place(0, "")


class Pruned(NamedTuple):
    """The result of one batch: how many runs it deleted, and where the next batch starts; None after the last one."""

    runs: int
    next: Place | None


def prune(engine: Engine, older_than: Any) -> int:
    """
    Delete all runs that ended longer ago than *older_than*, which takes what ``sleep`` takes.

    Orphaned payloads are deleted too, as the sweep does.  Runs that have not ended are never deleted, however old.
    Returns how many runs were deleted.
    """
    engine.check_schema()
    before = engine.now() - duration.to_micros(older_than, what="older_than")
    deleted, place = 0, START
    while True:
        batch = prune_batch(engine, before, place)
        deleted += batch.runs
        if batch.next is None:
            while prune_received(engine, before):
                pass
            orphans.collect_all(engine)
            return deleted
        place = batch.next


def prune_batch(engine: Engine, before: int, after: Place = START) -> Pruned:
    """
    Delete some of the runs that ended before then, oldest first.

    A run stays while it has work left, for example a step that still runs, and while a run that it has called,
    or that has one of its requests, may not be deleted.
    """
    with engine.store.read() as tx:
        page = retention.ended(tx, after=after, before=before, limit=RUNS)
    # The first runs with ``EVENTS`` events in all, and at least one run.
    totals = accumulate(run.events for run in page)
    batch = page[: max(1, sum(total <= EVENTS for total in totals))]
    if not batch:
        return Pruned(0, None)
    deleted = engine.store.write(lambda tx: _delete(tx, [run.id for run in batch], before))
    try:
        engine.store.vault.payloads.delete_runs(deleted)
    except PayloadStoreError as error:
        # They are orphans now, and collected later.
        log.warning("Payloads of %d deleted runs are left to the sweep: %s", len(deleted), reason(error))
    has_more = len(batch) < len(page) or len(page) == RUNS
    return Pruned(len(deleted), Place(batch[-1].ended_at, batch[-1].id) if has_more else None)


def prune_received(engine: Engine, before: int) -> bool:
    """Delete some of the requests to receivers that came before then and have reached no run; whether more may be."""
    with engine.store.read() as tx:
        old = received.old(tx, before, RUNS)
    if old:
        engine.store.write(lambda tx: received.remove_old(tx, old, before))
    return len(old) == RUNS


def _delete(tx: Connection, ids: Sequence[str], before: int) -> Sequence[str]:
    """Delete those of the runs that nothing uses; their ids."""
    locked = retention.lock(tx, ids)
    unused = sorted(locked - retention.in_use(tx, locked, before)) if locked else []
    if unused:
        retention.remove(tx, unused)
    return unused
