"""
The sentinel: a message that nobody reads, in a queue of its own.

While it is there, so are all the others, for it was sent before them.  When it is missing, the broker's memory is gone
(FLUSHALL, a restart without persistence, another broker): every row counts as unsent, and the sweep sends them all
again.  The next sentinel is put first, under a new name; a broker that keeps none has nothing sent again for it.  Then
its name is written down with the time of the loss, and the rows are gone through in small transactions, until the time
is taken away: whoever sweeps after a crash in between goes on.
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

#: The row that keeps the sentinel's name, and when the messages were lost: one per database, so that applications may
#: share a broker.
_ROW = "sentinel"
#: Later than any loss: no rows are to be gone through.
_NEVER = 2**62
#: Rows that one transaction changes, and for how long one look goes through them: the process has to beat meanwhile.
BATCH = 1000
_LONG = 500_000

log = log_records.get("durable.sweep")


def look(engine: Engine) -> bool:
    """Whoever sweeps: have everything sent again if the sentinel is missing; whether there is more to do."""
    with engine.store.read() as tx:
        known = workers.marked(tx, _ROW)
    if known is None or engine.dispatch.broker.length(_queue(known[0])) == 0:
        known = _renew(engine, is_first=known is None) or known
    if known is None or known[1] == _NEVER:
        return False
    name, lost_at = known
    if not _unsend(engine, lost_at):
        return True
    engine.store.write(lambda tx: workers.mark(tx, _ROW, name, _NEVER))
    return False


def _renew(engine: Engine, *, is_first: bool) -> tuple[str, int] | None:
    """Put the next sentinel there, and write it down; None when the broker keeps none."""
    name = secrets.token_hex(8)
    if not engine.dispatch.broker.keep(_queue(name)):
        return None
    # At the first look ever nothing is known to be lost.
    lost_at = _NEVER if is_first else engine.now()
    engine.store.write(lambda tx: _enforce(engine, tx, name, lost_at))
    if not is_first:
        log.warning("The broker has lost its messages: all that wait are sent again.")
    return name, lost_at


def _queue(name: str) -> str:
    return f"durable.sentinel.{name}"


def _enforce(engine: Engine, tx: Connection, name: str, lost_at: int) -> None:
    workers.mark(tx, _ROW, name, lost_at)
    if lost_at != _NEVER:
        for table in WORK_LISTS:
            outbox.mark_held_unsent(tx, table, lost_at, lost_at + engine.dispatch.eta_budget.ahead)


def _unsend(engine: Engine, lost_at: int) -> bool:
    """Let what was sent by then count as not sent; False when there was not the time for all of it."""
    until = engine.now() + _LONG
    for table in WORK_LISTS:
        after: Sequence[Any] | None = ()
        while after is not None:
            if engine.now() > until:
                return False
            act = partial(outbox.mark_unsent, table=table, lost_at=lost_at, after=after, limit=BATCH)
            after = engine.store.write(act)
    return True
