"""
Retention: runs that ended long ago are deleted, in batches, beside whatever else goes on.

A run that has ended changes no more, so nothing but its age and who still
asks for it has to be looked at.  A run goes as a whole: its events, hooks, requests with
their answers and dedupe keys, payloads and attributes, in one transaction; payloads outside of the database next.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from sqlalchemy import Connection

from .. import duration
from ..engine import Engine
from ..sandbox import log_records
from ..store import EndedRun, PayloadStoreError, reason, retention
from . import orphans

log = log_records.get("durable.prune")

#: The most runs of one transaction, and about how many events: one run alone may have more.
RUNS = 100
EVENTS = 5_000


class Place(NamedTuple):
    """How far the ended runs have been gone through: the end and the id of the last one seen."""

    ended_at: int
    run_id: str


#: Before the first of them.
START = Place(0, "")


class Pruned(NamedTuple):
    """What one batch came to: how many runs are gone, and where the next batch begins; None after the last."""

    runs: int
    next: Place | None


def prune(engine: Engine, older_than: Any) -> int:
    """
    Delete all runs that ended longer ago than *older_than*, which is what ``sleep`` takes; how many there were.

    Payloads that no run refers to go too, as they do by the sweep.
    Runs that have not ended are never deleted, however old.
    """
    engine.check_schema()
    before = engine.now() - duration.to_micros(older_than, what="older_than")
    gone, place = 0, START
    while True:
        batch = prune_batch(engine, before, place)
        gone += batch.runs
        if batch.next is None:
            orphans.collect_all(engine)
            return gone
        place = batch.next


def prune_batch(engine: Engine, before: int, after: Place = START) -> Pruned:
    """
    Delete some of the runs that ended before then, oldest first.

    Some stay: those with work left, a step that still runs for example, and those that called a run,
    or gave one a request of theirs, which is not to be deleted yet.
    """
    with engine.store.read() as tx:
        page = retention.ended(tx, after=after, before=before, limit=RUNS)
    batch = _small_enough(page)
    if not batch:
        return Pruned(0, None)
    gone = engine.store.write(lambda tx: _remove(tx, [run.id for run in batch], before))
    _delete_payloads(engine, gone)
    has_more = len(batch) < len(page) or len(page) == RUNS
    return Pruned(len(gone), Place(batch[-1].ended_at, batch[-1].id) if has_more else None)


def _delete_payloads(engine: Engine, gone: Sequence[str]) -> None:
    """Those outside of the database, after the commit; what is left there now are orphans, collected later."""
    try:
        engine.store.vault.payloads.delete_runs(gone)
    except PayloadStoreError as error:
        log.warning("Payloads of %d deleted runs are left to the sweep: %s", len(gone), reason(error))


def _small_enough(page: Sequence[EndedRun]) -> Sequence[EndedRun]:
    """The first of these runs, with ``EVENTS`` events in all; at least one run."""
    sums = accumulate(run.events for run in page)
    return page[: max(1, sum(total <= EVENTS for total in sums))]


def _remove(tx: Connection, ids: Sequence[str], before: int) -> Sequence[str]:
    locked = retention.lock(tx, ids)
    going = sorted(locked - retention.in_use(tx, locked, before)) if locked else []
    if going:
        retention.remove(tx, going)
    return going
