"""
Admission: sends the steps whose limits have room.

A step with limits gets no message before it is admitted.  Every process that makes room, or finds some, admits what
comes next: after a turn, after an attempt, when a rate's next time comes, and in each sweep.  What a crash leaves, the
sweep finds: the row of each key says when it is checked next.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from .. import registry
from ..client import run_limits
from ..engine import Engine
from ..sandbox import log_records
from ..store import Claim, ClaimedAttempt, LimitKey, admit_steps, limit_lines, limits, reason
from .limit_keys import KeyedLimits

#: The most keys that one sweep checks.
KEYS = 500
#: What is logged when the database cannot be used now.
_LEFT = "The sweep admits the steps that follow on those of run %s (%s)."

log = log_records.get("durable.limits")


def declare(engine: Engine, keyed: KeyedLimits) -> None:
    """Record the numbers of these limits in the database, once for each process."""
    if keyed:
        run_limits.declare(engine, [one.limit for each in keyed.values() for one in each])


def admit(engine: Engine, keys: Iterable[LimitKey]) -> None:
    """
    Admit the steps for which these keys have room, and send their messages.

    Never raises: what cannot be done now, the sweep does.
    """
    run_limits.admit_lines(keys, partial(_admit_some, engine), "steps")


def _admit_some(engine: Engine, key: LimitKey) -> bool:
    """Admit at most ``limits.BATCH`` steps of a key.  Return whether more can be admitted at once."""
    now = engine.store.now()
    sending = engine.dispatch.plan(now)
    admit_first = partial(admit_steps.admit, key=key, now=now, sending=sending)
    admission = engine.store.write(admit_first)
    if admission.needs:
        admission = engine.store.write(partial(admit_first, also=admission.needs))
    return _send(engine, admission, now)


def _send(engine: Engine, admission: admit_steps.Admission, now: int) -> bool:
    """Send the messages of what is admitted.  Return whether more can be admitted at once."""
    engine.dispatch.send_steps(admission.rows)
    return run_limits.is_due(engine, admission.again_at, now)


def admit_after(engine: Engine, held: Claim | ClaimedAttempt) -> None:
    """
    Admit the steps that follow on one that has ended, or was given up.

    Never raises: what cannot be done now, the sweep does.
    """
    step = registry.steps.get(held.name)
    if step is not None and not step.limits:
        return
    now = engine.store.now()
    after = partial(admit_steps.admit_after, run_id=held.run_id, op_id=held.op_id)
    try:
        admission, keys = engine.store.write(partial(after, now=now, sending=engine.dispatch.plan(now)))
        has_more = _send(engine, admission, now)
        if has_more or admission.needs or len(keys) > 1:
            admit(engine, keys)
    except SQLAlchemyError as error:
        log.warning(
            "The sweep admits the steps that follow on %s of run %s (%s).", held.name, held.run_id, reason(error)
        )


def admit_after_all(engine: Engine, run_id: str) -> None:
    """
    Admit the steps that follow on steps of a run whose calls were cancelled.

    Never raises: what cannot be done now, the sweep does.
    """
    try:
        admit(engine, engine.store.write(partial(limit_lines.forget, run_id=run_id)))
    except SQLAlchemyError as error:
        log.warning(_LEFT, run_id, reason(error))


def admit_due(engine: Engine) -> int:
    """Admit the steps of all keys that are to be checked now.  Return how many keys there were."""
    with engine.store.read() as tx:
        keys = limits.keys_due(tx, engine.now(), KEYS)
    admit(engine, keys)
    return len(keys)
