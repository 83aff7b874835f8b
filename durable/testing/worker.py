"""The worker of an environment: takes messages from the broker and runs them one after the other."""

from __future__ import annotations

from functools import partial

from .. import registry
from ..attempts import Address, Conclude, StepBody, attempt, go_on, record_in_place, run_claimed
from ..broker import DRIVE, WAKE
from ..engine import Engine
from ..turns import Continuation, drive, wake
from .memory_broker import MemoryBroker, Message

#: The queue of steps and workflows without a queue of their own.
QUEUE = "celery"


def run_until_idle(engine: Engine, broker: MemoryBroker) -> None:
    """Run every message that is due now, and the messages that follow from it."""
    while (message := broker.take()) is not None:
        _run_message(engine, message)


def _run_message(engine: Engine, message: Message) -> None:
    if message.adopted is not None:
        # Celery runs the application's task, and its wrapper then drives the run.
        engine.celery.conf.task_always_eager = True
        message.adopted.apply_async()
        return
    # No limit of time, since no other run waits for this worker.
    continuation = None
    if engine.settings.continuation:
        continuation = Continuation(engine, QUEUE, has_offers=message.has_offers, clock=lambda: 0.0)
    if message.task == WAKE:
        wake.fire(engine, message.run_id, message.op_id, continuation)
    elif message.task != DRIVE:
        address = Address(message.run_id, message.op_id, message.attempt)
        attempt(engine, registry.steps[message.task], address, None, conclude=_conclude(engine, continuation))
    if continuation is None:
        if message.task == DRIVE:
            drive(engine, message.run_id)
        else:
            engine.send_turns(message.run_id)  # the second task of the chain
        return
    while True:
        # The turn may have been taken together with the attempt's outcome.
        if not continuation.has_turned:
            go_on(engine, continuation, message.run_id)
        held = continuation.begin()
        if held is None:
            return
        run_claimed(engine, held, StepBody(registry.steps[held.name]), _conclude(engine, continuation))


def _conclude(engine: Engine, continuation: Continuation | None) -> Conclude | None:
    return None if continuation is None else partial(record_in_place, engine, continuation)
