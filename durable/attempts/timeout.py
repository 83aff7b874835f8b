"""
Gives up an attempt whose time is up and that does not end, and frees its worker's slot.

The attempt's own process does that, a grace period after the deadline.  When that process hangs as a whole, the sweep
does it by the deadline in the attempt's row.
"""

from __future__ import annotations

import os
import signal

from billiard import current_process

from .. import duration
from ..engine import Engine, Limit, grace
from ..errors import StepTimeout
from ..registry import Step
from ..sandbox import log_records
from ..store import Claim, ClaimedAttempt, claimed_attempts, retry_until_available
from .outcome import give_up_and_send, held_by_this_process

#: How many attempts one sweep gives up at most.
_BATCH = 500
#: How long after a deadline the sweep still leaves an attempt to its own process, in microseconds.
PROCESS_GRACE = grace(2**62) + 1_000_000

log = log_records.get("durable.steps")


def limit(engine: Engine, step: Step[..., object], held: Claim) -> Limit | None:
    """Return the attempt's deadline; None when it may take any time."""
    if step.timeout is None or held.deadline_at is None:
        return None

    def expire() -> None:
        log.warning("Step %s of run %s, attempt %d, does not end: given up.", held.name, held.run_id, held.attempt)
        error, own = timed_out(held, step.timeout), held_by_this_process(engine, held)
        retry_until_available(lambda: give_up_and_send(engine, own, error))
        if current_process().daemon:
            # A prefork child runs nothing else.  Its message comes again and finds nothing to claim.
            os.kill(os.getpid(), signal.SIGKILL)
        if deadline.abandon is not None:
            deadline.abandon()

    left = held.deadline_at - engine.now()
    deadline = Limit(engine.deadlines, step.timeout, left, is_async=step.is_async, expire=expire)
    return deadline


def timed_out(held: Claim | ClaimedAttempt, timeout: int | None = None) -> StepTimeout:
    """Return the error of an attempt that took too long."""
    allowed = "its timeout" if timeout is None else f"its timeout of {duration.to_text(timeout)}"
    return StepTimeout(
        "StepTimeout", f"attempt {held.attempt} of {held.name} took longer than {allowed}", attempts=held.attempt
    )


def give_up_overdue(engine: Engine) -> None:
    """Give up the attempts of all processes whose deadlines are long past."""
    with engine.store.read() as tx:
        overdue = claimed_attempts.past_deadline(tx, engine.now() - PROCESS_GRACE, _BATCH)
    for held in overdue:
        give_up_and_send(engine, held, timed_out(held))
