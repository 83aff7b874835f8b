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
from ..store import WORK_LISTS, BrokerSentinel, broker_sentinel, outbox

#: Rows that one transaction changes, and for how long one look goes through them: the process has to beat meanwhile.
BATCH = 1000
_LONG = 500_000

log = log_records.get("durable.sweep")


def look(engine: Engine) -> bool:
    """Whoever sweeps: have everything sent again if the sentinel is missing; whether there is more to do."""
    with engine.store.read() as tx:
        sentinel = broker_sentinel.read(tx)
    if sentinel is None or engine.dispatch.broker.length(_queue(sentinel.name)) == 0:
        sentinel = _renew(engine, is_first=sentinel is None) or sentinel
    if sentinel is None or sentinel.lost_at is None:
        return False
    if not _unsend(engine, sentinel.lost_at):
        return True
    done = BrokerSentinel(sentinel.name, None)
    engine.store.write(lambda tx: broker_sentinel.write(tx, done))
    return False


def _renew(engine: Engine, *, is_first: bool) -> BrokerSentinel | None:
    """Put the next sentinel there, and write it down; None when the broker keeps none."""
    name = secrets.token_hex(8)
    if not engine.dispatch.broker.keep(_queue(name)):
        return None
    # At the first look ever nothing is known to be lost.
    sentinel = BrokerSentinel(name, None if is_first else engine.now())
    engine.store.write(lambda tx: _enforce(engine, tx, sentinel))
    if not is_first:
        log.warning("The broker has lost its messages: all that wait are sent again.")
    return sentinel


def _queue(name: str) -> str:
    return f"durable.sentinel.{name}"


def _enforce(engine: Engine, tx: Connection, sentinel: BrokerSentinel) -> None:
    broker_sentinel.write(tx, sentinel)
    lost_at = sentinel.lost_at
    if lost_at is not None:
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
