"""Rows of the audit: what people did to a run, who, and when."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Connection, insert, select, update

from .schema import audit

#: Characters of an actor's name that are kept.
ACTOR_LIMIT = 255


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One action.  ``outcome`` is None while it goes on, and if its process ended in the middle."""

    id: int
    at: int
    action: str
    actor: str | None
    detail: str | None
    outcome: str | None


def subject(kind: str, name: str) -> str:
    """What an entry names that is about no run: there is room for the id of a run, and a name may be longer."""
    return f"{kind}:{sha256(name.encode()).hexdigest()[:40]}"


def begin(tx: Connection, run_id: str, *, at: int, action: str, actor: str | None, detail: str | None) -> int:
    """Record that an action begins; return the entry's id for ``finish``."""
    name = None if actor is None else actor[:ACTOR_LIMIT]
    row = {"run_id": run_id, "at": at, "action": action, "actor": name, "detail": detail}
    key = tx.execute(insert(audit).values(row)).inserted_primary_key
    assert key is not None
    return int(key[0])


def finish(tx: Connection, entry_id: int, outcome: str) -> None:
    """Record what came of an action."""
    tx.execute(update(audit).where(audit.c.id == entry_id).values(outcome=outcome))


def of_run(tx: Connection, run_id: str, limit: int) -> list[AuditEntry]:
    """The newest entries of a run, newest first."""
    query = select(audit.c.id, audit.c.at, audit.c.action, audit.c.actor, audit.c.detail, audit.c.outcome)
    rows = tx.execute(query.where(audit.c.run_id == run_id).order_by(audit.c.id.desc()).limit(limit))
    return [AuditEntry(*row) for row in rows]
