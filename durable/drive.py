"""
One turn: read, think, write, dispatch.

``durable.drive`` is sent whenever a run has news.  Two turns at once are
harmless: one of them fails its fence and thinks again.  A turn with nothing
new costs one query.
"""

from __future__ import annotations

import logging

from . import registry
from .commit import Aftermath, Overtaken, commit, current_code_version
from .engine import Engine
from .store import runs
from .turn import View, decide, read

#: How often a turn that was overtaken thinks again before it leaves the run to the next drive.
TRIES = 20

log = logging.getLogger("durable.drive")


def drive(engine: Engine, run_id: str) -> None:
    """
    Bring a run up to date with its inbox.

    Returns when there is nothing new, or when this process cannot drive the run: the news stay where
    they are, and the sweep sends the drive again.
    """
    engine.check_schema()
    for _ in range(TRIES):
        try:
            if not turn(engine, run_id):
                return
        except Overtaken as overtaken:
            log.debug("Run %s: %s.", run_id, overtaken)
    log.warning("Run %s was overtaken %d times in a row; the sweep drives it again.", run_id, TRIES)


def turn(engine: Engine, run_id: str) -> bool:
    """One turn; whether there may be more to do."""
    with engine.store.read() as tx:
        view = read(tx, run_id, engine.now())
    if view is None or _waits_for_other_code(engine, view):
        return False
    decision = decide(engine, view, registry.workflows.get(view.run.name))
    if decision is None:
        log.warning(
            "Run %s: this worker knows no workflow %r; left for one that does.  Is its module among the"
            " Celery app's include or imports?",
            run_id,
            view.run.name,
        )
        return False
    after = commit(engine, decision)
    if decision.fault is not None:
        log.error("Run %s is blocked.  %s", run_id, decision.fault)
        return False
    send(engine, after)
    return True


def send(engine: Engine, after: Aftermath) -> None:
    """Dispatch what a turn has committed.  What does not go out now, the sweep finds."""
    for holder, request_id in after.hints:
        engine.hint(holder, request_id)
    for step in after.steps:
        engine.dispatch.step(step)
    for wait in after.waits:
        if not engine.dispatch.wait(wait) and engine.on_due is not None:
            engine.on_due(wait.due_at)
    for run_id in after.drives:
        send_drive(engine, run_id)


def send_drive(engine: Engine, run_id: str) -> None:
    """Send a turn to the queue of the run."""
    with engine.store.read() as tx:
        run = runs.find(tx, run_id)
    if run is not None:
        engine.dispatch.drive(run.id, run.queue, run.priority)


def _waits_for_other_code(engine: Engine, view: View) -> bool:
    """A blocked run is tried once by each version of the code; a cancel ends it at once."""
    run = view.run
    if run.status != "blocked" or view.cancel is not None:
        return False
    return run.blocked_version is not None and run.blocked_version == current_code_version(engine, run)
