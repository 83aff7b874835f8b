"""Entries of the audit: each is begun before an action, and finished with what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from ..engine import Engine
from ..sandbox import log_records
from ..store import audit

#: Characters of an outcome that are kept.
LONGEST = 2_000

log = log_records.get("durable.audit")


def begin(engine: Engine, subject: str, action: str, actor: str | None, detail: str | None) -> Callable[[str], None]:
    """
    Commit an entry, and return a function that adds what came of the action.

    If that cannot be written, it is logged with an error, and the entry stays without an outcome.  An error answer
    would make the caller do it again.

    Args:
        subject: The id of a run, or what ``audit.subject`` returns.

    Raises:
        SQLAlchemyError: The entry could not be committed, so the action must not be done.
    """
    store = engine.store
    entry = store.write(lambda tx: audit.begin(tx, subject, at=store.now(), action=action, actor=actor, detail=detail))

    def finish(outcome: str) -> None:
        with _logged(subject, action, actor, outcome):
            store.write(lambda tx: audit.finish(tx, entry, outcome[:LONGEST]))

    return finish


def note(engine: Engine, run_id: str, action: str, actor: str | None) -> None:
    """
    Write the entry of something that is committed already: before, its run was not known.

    If that fails, it is logged.
    """
    store = engine.store

    def write(tx: Connection) -> None:
        entry = audit.begin(tx, run_id, at=store.now(), action=action, actor=actor, detail=None)
        audit.finish(tx, entry, "done")

    with _logged(run_id, action, actor, "done"):
        store.write(write)


@contextmanager
def _logged(subject: str, action: str, actor: str | None, outcome: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        log.error(
            "The audit lacks what came of an action, since it could not be written: %s of %s by %s: %s (%s)",
            action,
            subject,
            actor or "an unknown caller",
            outcome,
            type(error).__name__,
        )
