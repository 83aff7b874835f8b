"""
What an open run waits for now: the operations that have no outcome yet, and a turn if its inbox has an item.

Each is a dict of plain JSON with ``kind`` and ``operation`` (the run itself is ``r``):

========  ==========================================================================
step      ``name attempt state``: ``running`` (``worker since``), ``pending`` (``since``),
          ``delayed`` (``until``: a retry's delay), ``limited`` (``since limit key n per set in_use``:
          it waits for a limit), ``unknown`` (``since``), or ``in_doubt`` (``since``: the start of
          the attempt whose outcome is unknown)
turn      ``name state``: ``pending`` or ``unknown`` (``since``), ``delayed`` (``until``), ``limited`` as a step
sleep     ``until``
hook      ``token``
webhook   ``token url``
child     ``name run_id status``
========  ==========================================================================

``paused`` (``since``): a step or a turn that waits for a resume.

``unknown``: no live worker has registered the step, or the run's workflow.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from .. import duration
from ..context import recorded_url
from ..engine import Engine
from ..events import ROOT
from ..store import Run, RunStatus, hooks, limit_view, run_log, runs, steps, waits, workers
from . import limits

#: How many operations of one run are listed at most.
LIMIT = 100


def waiting_for(engine: Engine, tx: Connection, run: Run) -> list[dict[str, Any]]:
    """Return what *run* waits for, at most ``LIMIT`` operations; nothing when it has ended."""
    if run.ended:
        return []
    now = engine.now()
    registered = workers.registered(tx, now - engine.settings.dead_after)
    found: list[dict[str, Any]] = []
    since = run_log.first_inbox_item(tx, run.id)
    if since is not None and run.status != RunStatus.BLOCKED:
        wait = limit_view.wait_before_begin(tx, run.id) if run.status == RunStatus.PENDING else None
        not_before = (run.not_before or 0) if wait is None else wait.ready_at
        readiness = _readiness(run.name in registered, since, not_before, now)
        if run.paused_at is not None:
            readiness = {"state": "paused", "since": duration.iso(run.paused_at)}
        if wait is not None and readiness["state"] == "pending" and wait.limit.kind != "debounce":
            readiness |= limits.as_json(wait.limit) | {"state": "limited"}
        found.append({"kind": "turn", "operation": ROOT, "name": run.name} | readiness)
    limited = limit_view.waits_of_run(tx, run.id, LIMIT)
    for step in steps.of_run(tx, run.id, LIMIT):
        found.append(_step(step, registered, now, limited.get(step.op_id)))
    for op_id, due_at in waits.of_run(tx, run.id, LIMIT):
        found.append({"kind": "sleep", "operation": op_id, "until": duration.iso(due_at)})
    for hook in hooks.open_hooks(tx, run_id=run.id, limit=LIMIT):
        kind, url = "hook", {}
        if hook.config is not None:
            kind, url = "webhook", {"url": recorded_url(hook.config, hook.token)}
        found.append({"kind": kind, "operation": hook.op_id, "token": hook.token} | url)
    for child in runs.open_children(tx, run.id, LIMIT):
        operation = {"kind": "child", "operation": child.parent_op_id}
        found.append(operation | {"name": child.name, "run_id": child.id, "status": child.status})
    return found[:LIMIT]


def _step(
    step: steps.StepState, registered: set[str], now: int, waits_for: limit_view.LimitState | None
) -> dict[str, Any]:
    operation = {"kind": "step", "operation": step.op_id, "name": step.name, "attempt": step.attempt}
    if step.status == "claimed":
        worker = None if step.host is None else f"{step.host}:{step.pid}"
        return operation | {"state": "running", "worker": worker, "since": duration.iso(step.claimed_at)}
    if step.status == "in_doubt":
        return operation | {"state": "in_doubt", "since": duration.iso(step.claimed_at)}
    readiness = _readiness(step.name in registered, step.called_at, step.not_before, now)
    if step.paused_at is not None:
        readiness = {"state": "paused", "since": duration.iso(step.paused_at)}
    if readiness["state"] == "pending" and waits_for is not None:
        readiness |= limits.as_json(waits_for) | {"state": "limited"}
    return operation | readiness


def _readiness(is_registered: bool, since: int, not_before: int, now: int) -> dict[str, Any]:
    """Return the state of a turn or an attempt that has waited *since* then and may start at *not_before*."""
    if not is_registered:
        return {"state": "unknown", "since": duration.iso(since)}
    if not_before > now:
        return {"state": "delayed", "until": duration.iso(not_before)}
    return {"state": "pending", "since": duration.iso(max(since, not_before))}
