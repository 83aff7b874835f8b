"""
A new run, in one place for all that starts runs: calls, batches, parents, schedules and receivers.

``make_row`` makes its row.  Whether it may begin at once, ``store/start_run.py`` decides by its limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from .. import events, registry
from ..engine import Engine
from ..store import DriveRow, LimitKey, Run, RunLimit, RunStatus, start_run


def make_row(
    engine: Engine,
    name: str,
    *,
    run_id: str,
    digest: str,
    now: int,
    queue: str | None,
    priority: int | None,
    **belongs_to: Any,
) -> Run:
    """
    Return the row of a run that is created now and has had no turn.

    Args:
        name: The workflow's name.  This process may be one that does not have the workflow.
        digest: The digest of the arguments.
        belongs_to: The other columns that are not empty: what the run belongs to, and when it begins.
    """
    workflow = registry.workflows.get(name)
    return Run(
        id=run_id,
        name=name,
        status=RunStatus.PENDING,
        turn=0,
        seq=0,
        last_at=now,
        queue=queue,
        priority=priority,
        digest=digest,
        code_version=None if workflow is None else engine.code_version(workflow),
        created_at=now,
        **belongs_to,
    )


def created_event(row: Run, args: str) -> events.RunCreated:
    """Return the event that creates a run."""
    return events.RunCreated(at=row.created_at, name=row.name, args=args)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedRun:
    """A run that is about to be committed, to begin at once: its row, its encoded arguments and its attributes."""

    row: Run
    args: str
    attributes: Mapping[str, str]
    limits: Sequence[RunLimit] = ()

    def create(self, engine: Engine, tx: Connection) -> CreatedRun:
        """Write the run in this transaction, whose limits are declared."""
        row = self.row
        with engine.tracing.start(row.name, row.id) as trace_context:
            row = replace(row, trace_context=trace_context)
            sending = engine.dispatch.plan(row.created_at)
            created = created_event(row, self.args)
            run_id = start_run.create(tx, row, created, sending, self.attributes, self.limits)
        if self.limits:
            return CreatedRun(run_id=run_id, limit_keys=[each.key for each in self.limits])
        return CreatedRun(run_id=run_id, drive=DriveRow(row.id, row.queue, row.priority, trace_context=trace_context))


@dataclass(frozen=True, kw_only=True, slots=True)
class CreatedRun:
    """
    A run that a transaction has written, and what its commit leaves to send.

    Attributes:
        run_id: Under a debounce that of a run which has waited already.
        drive: What the message of its first turn is made from; None if it waits for limits.
        limit_keys: The limits that it waits for, whose keys may have room.
    """

    run_id: str
    drive: DriveRow | None = None
    limit_keys: Sequence[LimitKey] = ()
