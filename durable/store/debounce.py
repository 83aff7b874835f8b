"""
Debounces a start: a run of the same key that has not begun takes the start's arguments, and waits longer.

The row of the key is locked from here to the commit, and the admission of the run locks it too.  So of two starts the
second finds the run of the first, and a start that comes as the run begins finds that it has begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select, update

from .. import codec
from ..events import ROOT, AttributesSet, RunCreated
from . import attributes, requests, run_limits, run_log, runs, vault
from .event_rows import to_row
from .limits import CHECK_WAITING, level_of
from .outbox import SendTimes
from .run_limits import RunLimit
from .runs import Run
from .schema import inbox
from .schema import run_limits as rows
from .schema import runs as run_rows
from .transitions import RunStatus


def join(
    tx: Connection, debounced: RunLimit, run: Run, created: RunCreated, given: Mapping[str, str] | None
) -> str | None:
    """
    Give the arguments of a new start to the run that waits, and put its begin off; return that run's id.

    Args:
        run, created, given: What the start would have written.

    Returns:
        None when no run of the key waits: then *run* has to be written, and is the one that waits.
    """
    assert debounced.wait is not None
    key, now = debounced.key, run.created_at
    held = run_limits.lock_keys(tx, [key], now + CHECK_WAITING)[key]
    waiting = None if held.waiting_run_id is None else _waiting(tx, debounced, held.waiting_run_id, now)
    if waiting is None:
        run_limits.change_key(tx, key, waiting_run_id=run.id, waits_since=now)
        return None
    latest = now + debounced.wait
    if debounced.at_most is not None and held.waits_since is not None:
        latest = min(latest, held.waits_since + debounced.at_most)
    changes = {"ready_at": latest, "level": level_of(run.priority)}
    tx.execute(update(rows).where(rows.c.run_id == waiting.id).values(changes))
    _replace_arguments(tx, waiting, run, created)
    if given:
        attributes.write(tx, waiting.id, waiting.created_at, [given])
        added = AttributesSet(at=now, op_id=ROOT, attributes=given)
        run_log.post(tx, waiting.id, added, SendTimes(None, None))
    return waiting.id


def _waiting(tx: Connection, debounced: RunLimit, run_id: str, now: int) -> Run | None:
    """The run that waits under the debounce, its row locked; None when it has begun, is due, or is cancelled."""
    name = debounced.key.name
    mine = select(rows.c.state, rows.c.ready_at).where(rows.c.run_id == run_id, rows.c.name == name)
    # Locked, since a caller's transaction may read the rows as they were when it began.
    row = tx.execute(mine.with_for_update()).one_or_none()
    if row is None or row.state in run_limits.HELD or row.ready_at <= now:
        return None
    run = runs.lock(tx, run_id)
    # A cancel increments the turn too.
    return None if run is None or run.status != RunStatus.PENDING or run.turn else run


def _replace_arguments(tx: Connection, waiting: Run, run: Run, created: RunCreated) -> None:
    new = to_row(tx, waiting.id, created)
    mine = (inbox.c.run_id == waiting.id, inbox.c.kind == RunCreated.kind)
    tx.execute(update(inbox).where(*mine).values(data=new["data"], value=new["value"]))
    changes: dict[str, Any] = {"digest": vault.of(tx).keyed(run.digest), "code_version": run.code_version}
    changes |= {"queue": run.queue, "priority": run.priority}
    tx.execute(update(run_rows).where(run_rows.c.id == waiting.id).values(changes))
    requests.record_references(tx, waiting.id, codec.request_ids(created.args))
