"""
Reports what a committed turn has done to its run: log records, and the application's handlers.

Only the process that has committed the change reports it, so each change is logged once.  The handlers
(``on_run_failed``, ``on_run_blocked``) are called at least once: see ``engine/run_handlers.py``.
"""

from __future__ import annotations

from typing import Any

from .. import codec
from ..engine import Engine
from ..registry import Run
from ..sandbox import log_records
from ..store import RunStatus
from .decision import Decision
from .run_row import started_at

log = log_records.get("durable.runs")


def report(engine: Engine, decision: Decision) -> None:
    """Log the change of the run that this decision, which is committed, has made, and call the handlers for it."""
    log_change(decision)
    if decision.becomes is not None:
        engine.run_handlers.call(engine.store, Run(decision.run.id, engine), decision.becomes)


def log_change(decision: Decision) -> None:
    """Log that the run has started, has ended or is blocked."""
    row = decision.run
    fields = {"run_id": row.id, "workflow": row.name}
    if row.started_at is None and decision.fault is None and started_at(decision) is not None:
        log.info("Run %s of %s started.", row.id, row.name, extra=fields)
    match decision.becomes:
        case None:
            return
        case RunStatus.FAILED:
            _log_failure(decision, fields)
        case RunStatus.BLOCKED:
            cause = decision.fault and decision.fault.__cause__
            log.warning("Run %s is blocked.  %s", row.id, decision.fault, extra=fields, exc_info=cause)
        case status:
            log.info("Run %s of %s %s%s.", row.id, row.name, _ENDS[status], _took(decision), extra=fields)


_ENDS = {
    RunStatus.COMPLETED: "completed",
    RunStatus.CANCELLED: "was cancelled",
    RunStatus.CONTINUED: "continued as new",
}


def _log_failure(decision: Decision, fields: dict[str, Any]) -> None:
    """Log the failure with the failing step, the error, and both tracebacks if another process ran the step."""
    row, outcome = decision.run, decision.outcome
    assert outcome is not None
    assert outcome.value is not None
    found = None if outcome.error is None else codec.find_step_error(outcome.error)
    at_step, remote = "", ""
    if found is not None:
        step_error, step = found
        fields = {**fields, "step": step}
        at_step = f" at step {step}"
        if text := codec.remote_traceback(step_error):
            remote = f"\nThe step's traceback:\n{text.rstrip()}"
    summary = codec.error_summary(outcome.value)
    text = "Run %s of %s failed%s%s: %s%s"
    log.error(text, row.id, row.name, at_step, _took(decision), summary, remote, extra=fields, exc_info=outcome.error)


def _took(decision: Decision) -> str:
    """Return how long the run took, as text; empty for a run that has not started."""
    began = started_at(decision)
    return "" if began is None else f" after {max(0, decision.at - began) / 1_000_000:.1f} s"
