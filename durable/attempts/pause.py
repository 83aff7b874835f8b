"""
Pauses a limit for which a service has said that it takes no calls for a while.

The pause is advice: when it cannot be written, or a crash loses it, the next call is refused, and says so again.
"""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from .. import events
from ..engine import Engine
from ..errors import RetryableError
from ..sandbox import log_records
from ..store import Claim, limits, reason

log = log_records.get("durable.limits")


def pause_limit(engine: Engine, held: Claim, error: BaseException | None, ended: events.AttemptEnded) -> None:
    """Pause the limit that the error of an attempt names, until the attempt is retried.  Never raises."""
    name = error.__dict__.get("pause") if isinstance(error, RetryableError) else None
    if name is None or not isinstance(ended, events.StepRetrying):
        return
    until = ended.due_at
    try:
        is_paused = engine.store.write(lambda tx: limits.pause(tx, held.run_id, held.op_id, name, until))
    except SQLAlchemyError as trouble:
        log.warning("The limit %r is not paused (%s).", name, reason(trouble))
        return
    if not is_paused:
        log.warning(
            "Step %s of run %s: RetryableError(pause=%r) names none of the step's limits, and pauses nothing.",
            held.name,
            held.run_id,
            name,
        )
