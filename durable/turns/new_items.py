"""The items of streams that the workflow has emitted in a turn."""

from __future__ import annotations

from sqlalchemy import Connection

from ..replay import commands
from ..sandbox import log_records
from ..store import NewItem, emit_items
from .decision import Decision

log = log_records.get("durable.streams")


def write(tx: Connection, decision: Decision, now: int) -> tuple[list[NewItem], dict[str, int]]:
    """
    Write what the workflow has emitted, and return it.  Its streams belong to its first generation.

    Returns:
        Also, of the streams with items that were dropped, how many items were written.
    """
    emitted = [
        NewItem(each.name, each.item, now, each.options)
        for each in decision.commands
        if isinstance(each, commands.EmitItem)
    ]
    if not emitted:
        return [], {}
    run = decision.run
    dropped = emit_items.append(tx, run.first_run_id or run.id, emitted)
    for name in sorted(dropped):
        log.warning("Run %s has emitted to the stream %r after its end: it is dropped.", run.id, name)
    return emitted, dropped
