"""A worker's part: messages taken from the outbox, one after the other, and done."""

from __future__ import annotations

from functools import partial

from .. import registry
from ..attempts import Address, Body, Conclude, attempt, run_claimed
from ..broker import DRIVE, WAKE
from ..engine import Engine
from ..turns import Continuation, conclude, drive, wake
from .memory_broker import Message, Outbox

#: The queue of all messages whose step or workflow names none.
QUEUE = "celery"


def run_until_idle(engine: Engine, outbox: Outbox) -> None:
    """Deliver every message that is due now, and those that follow from it."""
    while (message := outbox.take()) is not None:
        _deliver(engine, message)


def _deliver(engine: Engine, message: Message) -> None:
    if message.adopted is not None:
        # Celery's own way through an application's task, which drives the run itself.
        engine.celery.conf.task_always_eager = True
        message.adopted.apply_async()
    else:
        _do(engine, message, _continuation(engine))


def _continuation(engine: Engine) -> Continuation | None:
    """How far a worker goes with one message; as far as it can, since nobody else waits."""
    return Continuation(engine, QUEUE, clock=lambda: 0.0) if engine.settings.continuation else None


def _do(engine: Engine, message: Message, continuation: Continuation | None) -> None:
    if message.task == WAKE:
        wake.fire(engine, message.run_id, message.op_id)
    elif message.task != DRIVE:
        address = Address(message.run_id, message.op_id, message.attempt)
        attempt(engine, registry.steps[message.task], address, None, conclude=_conclude(engine, continuation))
    if message.task == DRIVE or continuation is not None:
        _go_on(engine, message.run_id, continuation)
    else:
        _send_link(engine, message.run_id)


def _go_on(engine: Engine, run_id: str, continuation: Continuation | None) -> None:
    """The turn, unless it was taken with an attempt's outcome; then what was claimed here."""
    while True:
        if continuation is None or not continuation.has_turned:
            drive(engine, run_id, continuation=continuation)
        held = continuation and continuation.begin()
        if not held:
            return
        run_claimed(engine, held, Body(registry.steps[held.name]), _conclude(engine, continuation))


def _conclude(engine: Engine, continuation: Continuation | None) -> Conclude | None:
    return None if continuation is None else partial(conclude, engine, continuation)


def _send_link(engine: Engine, run_id: str) -> None:
    """The chain's second link, a message of its own."""
    engine.wake(run_id)
