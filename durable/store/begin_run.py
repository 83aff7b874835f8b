"""The start of a run together with its first turn: its row, its log and its first steps, on PostgreSQL at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from ..events import Event
from . import run_log, runs, steps
from .database import Store
from .outbox import SendTimes
from .runs import Run
from .schema import runs as rows
from .statements import Prepared

_COLUMNS = rows.c.keys()
_AT_ONCE = Prepared(
    text(
        f"WITH run AS (INSERT INTO durable_runs ({', '.join(_COLUMNS)})"
        f" VALUES ({', '.join(f':{name}' for name in _COLUMNS)}) RETURNING 1),"
        f" created AS ({steps.insert_first_attempts('run')})"
        f" INSERT INTO durable_events ({run_log.EVENT_COLUMNS}) SELECT :id, new.* FROM run, {run_log.NEW_EVENTS}"
    )
)


def commit(store: Store, run: Run, log: Sequence[Event], creates: Sequence[dict[str, Any]], sending: SendTimes) -> None:
    """
    Insert a run whose first turn is taken.

    Args:
        run: Its row after the first turn.
        log: The events of that turn.
        creates: The rows of its steps, as ``steps.create`` takes them, and when their messages are sent.

    Raises:
        IntegrityError: The id or the idempotency key exists.
    """

    def act(tx: Connection) -> None:
        if tx.dialect.name == "postgresql":
            parameters = runs.values(tx, run) | run_log.event_parameters(tx, run.id, log)
            _AT_ONCE.changed(tx, parameters | steps.first_attempt_parameters(creates, sending))
        else:
            runs.create(tx, run)
            run_log.append(tx, run.id, log)
            steps.create(tx, creates, sending)

    store.write(act, is_single_statement=True)
