"""
The statuses of runs and steps, and every change from one to another.

The tables are the reference: tests/flows/test_transitions.py makes each change happen, and finds no other one.  The
diagrams in the docs are made from them: ``python docs/make_diagrams.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class RunStatus(StrEnum):
    """The ``status`` of a run's row."""

    #: No turn of the run has been committed.
    PENDING = "pending"
    #: A turn has been committed, and the run has not ended.
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: The run has ended, and another run, its next generation, goes on.
    CONTINUED = "continued"
    #: The run has no turns until an operator or new code lets it go on.
    BLOCKED = "blocked"


class StepStatus(StrEnum):
    """The ``status`` of a step's row, which exists from the call of the step until its outcome is recorded."""

    #: The next attempt waits for a process to claim it.
    PENDING = "pending"
    #: A process runs the attempt.
    CLAIMED = "claimed"
    #: It is unknown whether an attempt of an at-most-once step did its work.
    IN_DOUBT = "in_doubt"


#: The statuses of runs that have ended.
ENDED = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.CONTINUED)

#: From a status to another one, and what causes it.  From None: the row is inserted.  To None: it is deleted.
RUN_TRANSITIONS: Mapping[tuple[RunStatus | None, RunStatus | None], str] = {
    (None, RunStatus.PENDING): "the run is started",
    (RunStatus.PENDING, RunStatus.RUNNING): "the first turn is committed",
    (RunStatus.PENDING, RunStatus.COMPLETED): "the first turn ends the run",
    (RunStatus.PENDING, RunStatus.FAILED): "the first turn raises",
    (RunStatus.PENDING, RunStatus.CANCELLED): "the run is cancelled before its first turn",
    (RunStatus.PENDING, RunStatus.CONTINUED): "the first turn continues as new",
    (
        RunStatus.PENDING,
        RunStatus.BLOCKED,
    ): "the first turn makes a mistake, spins, hangs or kills its process",
    (RunStatus.RUNNING, RunStatus.COMPLETED): "the workflow returns",
    (RunStatus.RUNNING, RunStatus.FAILED): "the workflow raises",
    (RunStatus.RUNNING, RunStatus.CANCELLED): "the run is cancelled",
    (RunStatus.RUNNING, RunStatus.CONTINUED): "the workflow continues as new",
    (RunStatus.RUNNING, RunStatus.BLOCKED): "the code has a mistake or does not match the log, or a step is in doubt",
    (RunStatus.BLOCKED, RunStatus.RUNNING): "the code is right again, or no step is in doubt any more",
    (RunStatus.BLOCKED, RunStatus.COMPLETED): "a turn succeeds and ends the run",
    (RunStatus.BLOCKED, RunStatus.FAILED): "a turn succeeds and the workflow raises",
    (RunStatus.BLOCKED, RunStatus.CANCELLED): "the run is cancelled",
    (RunStatus.BLOCKED, RunStatus.CONTINUED): "a turn succeeds and continues as new",
    **{(status, None): "the retention time is over" for status in ENDED},
}

#: The same for the rows of steps.
STEP_TRANSITIONS: Mapping[tuple[StepStatus | None, StepStatus | None], str] = {
    (None, StepStatus.PENDING): "a turn calls the step",
    (None, StepStatus.CLAIMED): "the turn's own process runs it at once",
    (StepStatus.PENDING, StepStatus.CLAIMED): "a process claims the attempt",
    (StepStatus.PENDING, None): "the call is cancelled",
    (StepStatus.CLAIMED, StepStatus.PENDING): "the attempt is retried, released or lost",
    (StepStatus.CLAIMED, StepStatus.IN_DOUBT): "the process of an at-most-once attempt is gone",
    (StepStatus.CLAIMED, None): "the outcome is recorded",
    (StepStatus.IN_DOUBT, StepStatus.PENDING): "its process lives after all, and reports a failure to retry",
    (StepStatus.IN_DOUBT, None): "the outcome is recorded, or the call is cancelled",
}


def mermaid(
    transitions: Mapping[tuple[RunStatus | None, RunStatus | None], str]
    | Mapping[tuple[StepStatus | None, StepStatus | None], str],
) -> str:
    """A Mermaid state diagram of a table."""
    lines = [f"    {a or '[*]'} --> {b or '[*]'}: {why}" for (a, b), why in transitions.items()]
    return "\n".join(["stateDiagram-v2", *lines])
