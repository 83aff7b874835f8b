"""
Attempts in doubt: an at-most-once step may have done its work or not, so it is not repeated.

The step's row and its run are marked in one transaction.  The run is blocked: it has no turns until you resolve the
step (``Run.resolve``), or the attempt's own process records an outcome after all.  The first of them wins, since both
need the attempt's claim.  Locks are taken in the order run, step.
"""

from __future__ import annotations

from .. import measures
from ..engine import Engine
from ..sandbox import log_records
from ..store import Claim, ClaimedAttempt, RunStatus, in_doubt, runs

log = log_records.get("durable.steps")


def put_in_doubt(engine: Engine, held: Claim | ClaimedAttempt, what_happened: str) -> bool:
    """
    Put an attempt in doubt and block its run.  Return whether it is in doubt now.

    False means that nobody waits for its outcome: its call was given up, or it has ended, or its run has.
    """
    why = (
        f"Step {held.name} ({held.op_id}), attempt {held.attempt}, is in doubt: {what_happened}.  It is to run at most"
        " once, so it is not repeated.  Find out whether it did its work, then say so:"
        f" `durable runs resolve {held.run_id} --step {held.op_id} --result JSON`, or `--fail MESSAGE`."
    )
    with engine.store.begin() as tx:
        run = runs.lock(tx, held.run_id)
        if run is None or run.ended:
            return False
        if not in_doubt.enter(tx, held, why):
            return in_doubt.is_in_doubt(tx, held)
        in_doubt.block(tx, held.run_id, in_doubt.of_run(tx, held.run_id))
        if run.status != RunStatus.BLOCKED:
            # The handlers may take long, and this may be the thread that sends heartbeats: the sweep has them called.
            engine.run_handlers.plan(tx, run.id, RunStatus.BLOCKED, engine.store.now())
    if run.status != RunStatus.BLOCKED:
        engine.measures.count(measures.RUNS_BLOCKED, run.name)
    engine.measures.count(measures.ATTEMPTS, held.name, "in_doubt")
    fields = {"run_id": run.id, "workflow": run.name, "step": held.name, "attempt": held.attempt}
    text = "Run %s is blocked: attempt %d of %s is in doubt."
    log.warning(text, held.run_id, held.attempt, held.name, extra=fields)
    return True
