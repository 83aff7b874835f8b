"""
The broker sentinel: a message in a queue that nobody reads, which shows whether the broker has lost its messages.

The sentinel was sent before all other messages.  While it is there, they are too.  When it is missing, the broker has
lost everything (FLUSHALL, a restart without persistence, another broker), so every message counts as not sent, and the
sweep sends them all again:

1. A new sentinel is sent, under a new name.  With a broker that keeps none, nothing is sent again.
2. Its name and the time of the loss are written down.
3. The rows are marked as not sent, in small transactions.
4. The time of the loss is taken away.  After a crash before that, the next process that sweeps goes on with step 3.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection

from ..engine import Engine
from ..sandbox import log_records
from ..store import WORK_LISTS, outbox, workers

#: The row that holds the sentinel's name and the time of the loss: one per database, so that applications may share a
#: broker.
_ROW = "sentinel"
#: The time of the loss while nothing is lost: later than any loss.
_NEVER = 2**62
#: Rows that one transaction marks.
BATCH = 1000
#: How long one check marks rows, in microseconds: the process has to send heartbeats in between.
CHECK_LIMIT = 500_000

log = log_records.get("durable.sweep")


def check(engine: Engine) -> bool:
    """Have everything sent again if the sentinel is missing.  Returns whether rows are left for the next check."""
    with engine.store.read() as tx:
        marked = workers.marked(tx, _ROW)
    if marked is None or engine.dispatch.broker.length(_queue(marked[0])) == 0:
        marked = _renew(engine, is_first=marked is None) or marked
    if marked is None or marked[1] == _NEVER:
        return False
    name, lost_at = marked
    if not _unsend(engine, lost_at):
        return True
    engine.store.write(lambda tx: workers.mark(tx, _ROW, name, _NEVER))
    return False


def _renew(engine: Engine, *, is_first: bool) -> tuple[str, int] | None:
    """Send a new sentinel and write it down: its name and the time of the loss.  None when the broker keeps none."""
    name = secrets.token_hex(8)
    if not engine.dispatch.broker.keep(_queue(name)):
        return None
    # Before the first sentinel nothing is known to be lost.
    lost_at = _NEVER if is_first else engine.now()

    def mark(tx: Connection) -> None:
        workers.mark(tx, _ROW, name, lost_at)
        if not is_first:
            for table in WORK_LISTS:
                outbox.unsend_held(tx, table, lost_at, lost_at + engine.dispatch.eta_budget.ahead)

    engine.store.write(mark)
    if not is_first:
        log.warning("The broker has lost its messages: all of them are sent again.")
    return name, lost_at


def _queue(name: str) -> str:
    return f"durable.sentinel.{name}"


def _unsend(engine: Engine, lost_at: int) -> bool:
    """Mark what was sent by then as not sent.  Returns False when one check has no time for all of it."""
    until = engine.now() + CHECK_LIMIT
    for table in WORK_LISTS:
        after: Sequence[Any] | None = ()
        while after is not None:
            if engine.now() > until:
                return False
            after = engine.store.write(partial(outbox.unsend, table=table, lost_at=lost_at, after=after, limit=BATCH))
    return True
