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
from ..engine import Engine
from ..sandbox import log_records
from ..store import LimitKey, admit_steps, limits, reason
from .limit_keys import KeyedLimits

#: The most keys that one sweep checks.
KEYS = 500
#: The most batches of one key that are admitted one after the other; the sweep admits the rest.
_ROUNDS = 100

log = log_records.get("durable.limits")


def declare(engine: Engine, keyed: KeyedLimits) -> None:
    """Record the numbers of these limits in the database, once for each process."""
    numbers = {one.limit.name: one.limit.numbers for each in keyed.values() for one in each}
    new = {name: found for name, found in numbers.items() if engine.declared_limits.get(name) != found}
    if new:
        with engine.store.begin() as tx:
            for name, found in sorted(new.items()):
                limits.declare(tx, name, limits.Numbers(*found))
        engine.declared_limits |= new


def admit(engine: Engine, keys: Iterable[LimitKey]) -> None:
    """
    Admit the steps for which these keys have room, and send their messages.

    Never raises: what cannot be done now, the sweep does.
    """
    try:
        # First the lines in which steps wait that have come from others.
        for key in sorted(set(keys), key=lambda each: (*each.rank, each.key), reverse=True):
            for _ in range(_ROUNDS):
                if not _admit_some(engine, key):
                    break
    except SQLAlchemyError as error:
        log.warning("The sweep admits steps that wait for limits (%s).", reason(error))


def _admit_some(engine: Engine, key: LimitKey) -> bool:
    """Admit at most ``limits.BATCH`` steps of a key.  Return whether more can be admitted at once."""
    now = engine.store.now()
    sending = engine.dispatch.plan(now)
    admission = engine.store.write(partial(admit_steps.admit, key=key, now=now, sending=sending))
    engine.dispatch.send_steps(admission.rows)
    if admission.again_at is not None and admission.again_at > now and engine.on_due is not None:
        engine.on_due(admission.again_at)
    return admission.again_at is not None and admission.again_at <= now


def admit_after(engine: Engine, run_id: str, op_id: str | None = None, *, name: str | None = None) -> None:
    """
    Admit the steps that follow on steps of a run which have ended or were given up.

    Never raises: what cannot be done now, the sweep does.

    Args:
        op_id: The step; None for all of the run.
        name: The step's name.  Without limits nothing follows.
    """
    step = None if name is None else registry.steps.get(name)
    if step is not None and not step.limits:
        return
    try:
        with engine.store.read() as tx:
            keys = limits.keys_of(tx, run_id, op_id)
        if keys:
            admit(engine, engine.store.write(partial(limits.forget, run_id=run_id, op_id=op_id)) or keys)
    except SQLAlchemyError as error:
        log.warning("The sweep admits the steps that follow on those of run %s (%s).", run_id, reason(error))


def admit_due(engine: Engine) -> int:
    """Admit the steps of all keys that are to be checked now.  Return how many keys there were."""
    with engine.store.read() as tx:
        keys = limits.keys_due(tx, engine.now(), KEYS)
    admit(engine, keys)
    return len(keys)
