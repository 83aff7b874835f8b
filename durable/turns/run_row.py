"""The run's row, as a turn changes it."""

from __future__ import annotations

import platform
from typing import Any

from .. import events, registry
from ..engine import Engine
from ..store import Run, RunStatus
from .decision import Decision


def row_after(decision: Decision, seq: int, at: int) -> Run:
    """Return the run's row once the decision is committed; *seq* and *at* are those of the log's last event."""
    run = decision.run
    completed_at = run.completed_at if decision.outcome is None else at
    after = {"completed_at": completed_at, "turn": run.turn + 1, "turn_tries": None, "turn_tried": None}
    return run.changed(changes(decision, seq, at) | after)


def changes(decision: Decision, seq: int, at: int) -> dict[str, Any]:
    """Return the columns of the run's row that the turn changes."""
    run = decision.run
    changes: dict[str, Any] = {"seq": seq, "last_at": at}
    if run.ended:
        return changes
    changes |= {"status": decision.outcome.status if decision.outcome else RunStatus.RUNNING}
    changes |= {"blocked": None, "blocked_version": None, "mistake_at": None}
    if run.started_at is None:
        changes |= {"started_at": started_at(decision), "python_version": platform.python_version()}
    return changes


def started_at(decision: Decision) -> int | None:
    """Return when the run started; None if it has not, and this turn does not start it."""
    started = (event.at for event in decision.events if isinstance(event, events.RunStarted))
    return decision.run.started_at or next(started, None)


def current_code_version(engine: Engine, run: Run) -> str | None:
    """Return the version of the workflow's code in this process; None when it does not know the workflow."""
    workflow = registry.workflows.get(run.name)
    return None if workflow is None else engine.code_version(workflow)
