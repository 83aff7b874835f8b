"""
What becomes of an attempt whose time is up, and that does not end: it is given up, and its slot freed.

Its process does that itself, a grace after the deadline.  Where the process hangs as a whole, whoever sweeps does, by
the deadline in the attempt's row.
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
from ..store import Claim, ClaimedAttempt, retry_until_available, steps
from .outcome import give_up, held_here, route

#: The most that a sweep gives up.
_BATCH = 500
#: How long after a deadline the sweep still leaves an attempt to its own process, in microseconds.
_PROCESS_GRACE = grace(2**62) + 1_000_000

log = log_records.get("durable.steps")


def limit(engine: Engine, step: Step[..., object], held: Claim) -> Limit | None:
    """The attempt's deadline, None when it may take as long as it likes."""
    if step.timeout is None or held.deadline_at is None:
        return None

    def expire() -> None:
        _expire(engine, made, held_here(engine, held), timed_out(held, step.timeout))

    made = Limit(engine.deadlines, step.timeout, held.deadline_at - engine.now(), is_async=step.is_async, expire=expire)
    return made


def timed_out(held: Claim | ClaimedAttempt, timeout: int | None = None) -> StepTimeout:
    """What an attempt fails with that took too long."""
    allowed = "its timeout" if timeout is None else f"its timeout of {duration.to_text(timeout)}"
    return StepTimeout(
        "StepTimeout", f"attempt {held.attempt} of {held.name} took longer than {allowed}", attempts=held.attempt
    )


def _expire(engine: Engine, expired: Limit, held: ClaimedAttempt, error: StepTimeout) -> None:
    log.warning("Step %s of run %s, attempt %d, does not end: given up.", held.name, held.run_id, held.attempt)
    retry_until_available(lambda: give_up_and_send(engine, held, error))
    if current_process().daemon:
        # A prefork child runs nothing else.  Its message comes again and finds nothing to claim.
        os.kill(os.getpid(), signal.SIGKILL)
    if expired.abandon is not None:
        expired.abandon()


def give_up_and_send(engine: Engine, held: ClaimedAttempt, error: StepTimeout) -> None:
    """Give the attempt up; send the next one, or a turn that hears of the end."""
    row = give_up(engine, held, error)
    if row is not None:
        engine.dispatch.step(row)
        return
    with engine.store.read() as tx:
        queue, priority = route(tx, held.run_id)
    engine.dispatch.drive(held.run_id, queue, priority)


def give_up_overdue(engine: Engine) -> None:
    """Give up what should have ended long ago by its deadline, whoever runs it."""
    with engine.store.read() as tx:
        overdue = steps.past_deadline(tx, engine.now() - _PROCESS_GRACE, _BATCH)
    for held in overdue:
        give_up_and_send(engine, held, timed_out(held))
