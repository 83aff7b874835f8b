"""
``durable health``: what a probe asks, without the other checks of ``durable doctor``.

A probe restarts what it finds unwell.  So the worker of this host is well while the database is away: a restart would
not help, and would end the steps that run.
"""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from .. import duration
from ..engine import Engine, identify
from ..store import is_unavailable, reason, workers
from .finding import Finding, check, listed
from .servers import database


def of_database(engine: Engine) -> Finding:
    """The database answers, and has this code's schema."""
    return check("database", database, engine)


def of_worker(engine: Engine) -> Finding:
    """A worker process of this host has sent a heartbeat within ``dead_after``, and takes messages."""
    own = identify()
    try:
        with engine.store.read() as tx:
            found = workers.alive(tx, engine.store.now() - engine.settings.dead_after)
    except SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        return Finding(name="worker", ok=True, detail=f"not known: the database is away ({reason(error)})")
    here = [each for each in found if (each.host, each.boot_id) == (own.host, own.boot_id)]
    shown = listed([f"{each.host}:{each.pid}" for each in here])
    if any(each.deaf_since is None for each in here):
        return Finding(name="worker", ok=True, detail=shown)
    if here:
        return Finding(name="worker", ok=False, detail=f"{shown} takes no messages, although some wait in its queues.")
    within = duration.to_text(engine.settings.dead_after)
    return Finding(
        name="worker", ok=False, detail=f"No worker process of {own.host} has sent a heartbeat for {within}."
    )
