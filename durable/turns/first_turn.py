"""
Starts a run together with its first turn, in the process that calls ``start``: the setting ``first_turn_budget``.

One commit then creates the run and the steps that its workflow calls first, and their messages go out at once: no
message of the turn has to reach a worker before.  Whatever stands in the way, nothing is written here, and the run
starts as without the setting.  A workflow whose first turn does more than to call steps, or takes too long, is not
tried again in this process: its code would run twice for each start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from .. import events, failpoints, registry
from ..engine import Checkout, Engine, has_threads
from ..errors import TurnTooLong
from ..replay import commands
from ..sandbox import log_records
from ..store import InboxItem, Run, begin_run
from .commit import count
from .decide import decide
from .decision import Decision
from .finish import measure
from .new_steps import of_plain_turn
from .plain_turn import is_plain
from .report import report
from .run_row import row_after
from .view import NO_ROW, View

log = log_records.get("durable.starting")


def start_with_first_turn(engine: Engine, run: Run, created: events.RunCreated) -> bool:
    """
    Commit a new run with its first turn, and send its first steps.  Return False when nothing is written.

    Args:
        run: Its row, as it is before the first turn.

    Raises:
        IntegrityError: The id or the idempotency key exists.
    """
    workflow = registry.workflows.get(run.name)
    if workflow is None or workflow.limits or not _may_take_turn(engine, run):
        return False
    began = time.monotonic_ns()
    checkout = Checkout(None, lambda replay: engine.stuck.put_away(replay, engine.starts_watchdog))
    try:
        decision = _decide(engine, View(run, [InboxItem(NO_ROW, created)]), workflow, checkout)
        wanted = [] if decision is None else [c for c in decision.commands if isinstance(c, commands.CreateStep)]
        if decision is None or not wanted or len(wanted) < len(decision.commands):
            engine.left_first_turns.add(run.name)
            return False
        creates, to_send = of_plain_turn(engine, run, wanted)
        after = row_after(decision, decision.seq, decision.at)
        begin_run.commit(engine.store, after, decision.events, creates, engine.dispatch.plan(engine.store.now()))
        failpoints.hit("start.committed")
        engine.dispatch.send_steps(to_send)
        count(engine, decision)
        measure(engine, decision, began)
        report(engine, decision)
        return True
    finally:
        # The worker that takes the next turn has a replay of its own.
        checkout.drop()


def _decide(
    engine: Engine, view: View, workflow: registry.Workflow[..., object], checkout: Checkout
) -> Decision | None:
    """Return what the first turn writes; None for one that a worker has to take."""
    try:
        decision = decide(engine, view, workflow, checkout, engine.starts_watchdog)
    except Exception as error:
        log.debug("The first turn of run %s is left to a worker (%s).", view.run.id, error)
        return None
    if decision is not None and isinstance(decision.fault, TurnTooLong):
        log.warning("From now on the first turns of %s are left to workers: %s", view.run.name, decision.fault)
    # A worker blocks a run, and calls the application's handlers at its end.
    if decision is None or decision.fault is not None or decision.outcome is not None or not is_plain(engine, decision):
        return None
    tasks: Mapping[str, object] = engine.celery.tasks
    is_known = all(each.name in tasks for each in decision.commands if isinstance(each, commands.CreateStep))
    return decision if is_known else None


def _may_take_turn(engine: Engine, run: Run) -> bool:
    """Return whether this thread may run the workflow's code."""
    if run.name in engine.left_first_turns or engine.celery.conf.task_always_eager:
        return False
    # Where threads are greenlets, nothing could stop the code.  An event loop must not wait for it.
    if not has_threads() or asyncio._get_running_loop() is not None:
        return False
    engine.pauses.read_if_older(engine.store, engine.settings.beat_interval / 1_000_000)
    return not (engine.pauses and engine.pauses.of_run(run.name, engine.dispatch.find_queue_of_turn(run.queue)))
