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

from .. import measures
from ..engine import Engine
from ..sandbox import log_records
from ..store import WORK_LISTS, BrokerSentinel, broker_sentinel, outbox

#: Rows that one transaction marks.
BATCH = 1000
#: How long one check marks rows, in microseconds: the process has to send heartbeats in between.
CHECK_LIMIT = 500_000

#: The kinds of messages, by the table of their rows.
_KINDS = {"durable_steps": "step", "durable_waits": "timer", "durable_inbox": "turn"}

log = log_records.get("durable.sweep")


def check(engine: Engine) -> bool:
    """Have everything sent again if the sentinel is missing.  Returns whether rows are left for the next check."""
    with engine.store.read() as tx:
        sentinel = broker_sentinel.read(tx)
    if sentinel is None or engine.dispatch.broker.length(_queue(sentinel.name)) == 0:
        sentinel = _renew(engine, is_first=sentinel is None) or sentinel
    if sentinel is None or sentinel.lost_at is None:
        return False
    if not _mark_unsent(engine, sentinel.lost_at):
        return True
    done = BrokerSentinel(sentinel.name, None)
    engine.store.write(lambda tx: broker_sentinel.write(tx, done))
    return False


def _renew(engine: Engine, *, is_first: bool) -> BrokerSentinel | None:
    """Send a new sentinel and write it down.  None when the broker keeps none."""
    name = secrets.token_hex(8)
    if not engine.dispatch.broker.keep(_queue(name)):
        return None
    # Before the first sentinel nothing is known to be lost.
    lost_at = None if is_first else engine.now()

    def write(tx: Connection) -> dict[str, int]:
        broker_sentinel.write(tx, BrokerSentinel(name, lost_at))
        if lost_at is None:
            return {}
        until = lost_at + engine.dispatch.eta_budget.ahead
        return {table.name: outbox.mark_held_unsent(tx, table, lost_at, until) for table in WORK_LISTS}

    for table, marked in engine.store.write(write).items():
        _count_lost(engine, table, marked)
    if lost_at is not None:
        log.warning("The broker has lost its messages: all of them are sent again.")
    return BrokerSentinel(name, lost_at)


def _queue(name: str) -> str:
    return f"durable.sentinel.{name}"


def _mark_unsent(engine: Engine, lost_at: int) -> bool:
    """Mark what was sent by then as not sent.  Returns False when one check has no time for all of it."""
    until = engine.now() + CHECK_LIMIT
    for table in WORK_LISTS:
        after: Sequence[Any] | None = ()
        while after is not None:
            if engine.now() > until:
                return False
            mark = partial(outbox.mark_unsent, table=table, lost_at=lost_at, after=after, limit=BATCH)
            marked, after = engine.store.write(mark)
            _count_lost(engine, table.name, marked)
    return True


def _count_lost(engine: Engine, table: str, marked: int) -> None:
    if marked:
        engine.measures.count(measures.MESSAGES_LOST, _KINDS[table], by=marked)
