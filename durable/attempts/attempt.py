"""
One attempt of one step: claim, run the author's function, record.

A claim takes the attempt in SQL before the body runs; every later write is
guarded by it, so that an attempt which was given up meanwhile (its process
was taken for dead) can record nothing.  The Celery task that carries an
attempt returns normally whatever the author's function did: an exception
would cut the chain's link, which drives the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from random import random
from typing import Any

from .. import codec, current, duration, events, failpoints
from ..engine import Engine
from ..errors import DecryptionError, FatalError, PayloadMissing, RetryableError, SerializationError
from ..http import Request
from ..registry import RetryPolicy, Step, definitions
from ..sandbox import ends_process, log_records
from ..store import REFERENCE, Claim, StepRow, requests, retry_until_available
from . import event_loop
from .claim import Address, claim
from .outcome import is_held, record, release, write
from .running_attempt import RunningAttempt, describe

log = log_records.get("durable.steps")


class Body:
    """What an attempt runs, and what becomes of it when that raises."""

    def __init__(self, step: Step[..., Any]) -> None:
        self.step = step

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The author's function."""
        return self.step.body(*args, **kwargs)

    def failure(self, running: RunningAttempt, error: BaseException) -> events.AttemptEnded:
        """Another attempt by the step's own policy, or the end."""
        return _failure(self.step, running, error)

    def tell(self, running: RunningAttempt, ended: events.AttemptEnded) -> None:
        """Log how the attempt failed, once that is recorded."""
        held, error = running.held, running.error
        if error is None:
            return
        if isinstance(ended, events.StepRetrying):
            retried = "Step %s of run %s, attempt %d: %r; will be tried again."
            log.warning(retried, held.name, held.run_id, held.attempt, error)
        elif running.watch.given_up:
            log.info("Step %s of run %s ended after its call was given up: %r", held.name, held.run_id, error)
        else:
            log.error("Step %s of run %s failed: %r", held.name, held.run_id, error, exc_info=error)


#: Records an outcome in the turn that it asks for; False where it cannot.
Conclude = Callable[[Claim, events.AttemptEnded], bool]


def attempt(
    engine: Engine,
    step: Step[..., Any],
    address: Address,
    message_id: str | None,
    body: Body | None = None,
    conclude: Conclude | None = None,
) -> bool:
    """Run one attempt, if it is there to be run; whether it was."""
    engine.check_schema()
    try:
        held = claim(engine, step, address, message_id)
    except DecryptionError as unreadable:
        log.error("Step %s of run %s is left for a worker that can read it: %s", step.name, address.run, unreadable)
        return False
    if held is None:
        return False
    run_claimed(engine, held, body or Body(step), conclude)
    return True


def run_claimed(engine: Engine, held: Claim, body: Body, conclude: Conclude | None) -> None:
    """Run an attempt that this process has claimed."""
    engine.running.add(held.claim)
    try:
        _attempt(engine, held, body, conclude)
    finally:
        engine.running.discard(held.claim)


def _attempt(engine: Engine, held: Claim, body: Body, conclude: Conclude | None) -> None:
    running = describe(engine, body.step, held)
    failpoints.hit("step.claimed")
    token = current.running_step.set(running)
    try:
        ended = _call(engine, body, running)
    except BaseException as error:
        # The process is being stopped, or lacks a key: hand the attempt back, uncounted.
        running.roll_back()
        delay = engine.settings.resend_after if isinstance(error, DecryptionError) else 0
        retry_until_available(lambda: release(engine, held, has_begun=running.has_begun, delay=delay))
        raise
    finally:
        current.running_step.reset(token)
    failpoints.hit("step.finished")
    if conclude is not None and running.transaction is None and conclude(held, ended):
        body.tell(running, ended)
        return
    row = _record(engine, body, running, ended)
    failpoints.hit("step.recorded")
    if row is not None and not engine.dispatch.step(row) and engine.on_due is not None:
        engine.on_due(row.not_before)


def _record(engine: Engine, body: Body, running: RunningAttempt, ended: events.AttemptEnded) -> StepRow | None:
    """Record the outcome, then log it; with what the step's session wrote, if it had one and returned."""
    held, own = running.held, running.transaction
    if own is not None and own.tx is not None and isinstance(ended, events.StepCompleted):
        try:
            if not own.commit(lambda tx: write(engine, tx, held, ended).is_current):
                log.warning("Attempt %d of %s was given up: nothing of it is written.", held.attempt, held.name)
            return None
        except BaseException as error:
            # The database's error, or one of the application's listeners on its session.
            if ends_process(error):
                raise
            own.close()
            if not retry_until_available(lambda: is_held(engine, held)):
                return None  # it was committed, whatever the error says; or the attempt was given up
            ended = _failed(body, running, error)
        finally:
            own.close()
    else:
        running.roll_back()
    row = retry_until_available(lambda: record(engine, held, ended))
    body.tell(running, ended)
    return row


def _call(engine: Engine, body: Body, running: RunningAttempt) -> events.AttemptEnded:
    """Run the author's function; its outcome as the event that ends the attempt."""
    held, step = running.held, body.step
    try:
        args, kwargs = _arguments(engine, step, held)
        running.has_begun = True
        result = running.within_limit(lambda: _result(engine, body, running, args, kwargs))
        fitting = codec.fit(result, step.return_annotation, f"result of {step.name}")
        text = codec.encode(fitting, "result")
        running.flush()
    except BaseException as error:
        # Not the step's own: its process ends, or has not the key to a value.
        if ends_process(error) or isinstance(error, DecryptionError):
            raise
        return _failed(body, running, error)
    return events.StepCompleted(result=text, **running.ending())


def _failed(body: Body, running: RunningAttempt, error: BaseException) -> events.AttemptEnded:
    """What an attempt that raised comes to, whatever its error does when it is asked about itself."""
    running.error = error
    try:
        return body.failure(running, error)
    except BaseException as trouble:
        if ends_process(trouble):
            raise
        return events.StepFailedEvent(error=codec.encode_error(error), **running.ending())


def _result(engine: Engine, body: Body, running: RunningAttempt, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = body.run(*args, **kwargs)
    return _run_async(engine, running, result) if asyncio.iscoroutine(result) else result


def _run_async(engine: Engine, attempt: RunningAttempt, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Wait for a coroutine's result; it can be interrupted meanwhile."""
    running = event_loop.Running(coroutine)
    engine.interrupts[attempt.held.claim] = running.cancel
    if attempt.limit is not None:
        attempt.limit.interrupt, attempt.limit.abandon = running.cancel, running.abandon
    try:
        return running.result()
    finally:
        engine.interrupts.pop(attempt.held.claim, None)


def _arguments(engine: Engine, step: Step[..., Any], held: Claim) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def load() -> tuple[str, Mapping[str, Request]]:
        with engine.store.read() as tx:
            text = engine.store.vault.fetch(tx, held.run_id, held.args) or ""
            return text, requests.load(tx, codec.request_ids(text))

    needs_more = held.args.startswith(REFERENCE) or codec.request_ids(held.args) - held.requests.keys()
    text, known = retry_until_available(load) if needs_more else (held.args, held.requests)
    bound = codec.decode_call(text, known, step.signature)
    definitions.fit_arguments(step, bound)
    return bound.args, bound.kwargs


def _failure(step: Step[..., Any], running: RunningAttempt, error: BaseException) -> events.AttemptEnded:
    held, kind = running.held, type(error)
    known = running.ending()
    is_final = issubclass(kind, (FatalError, PayloadMissing, SerializationError))
    with suppress(Exception):  # a look that fails costs the step no attempt
        running.watch.look()
    if running.watch.given_up or is_final or not step.policy.may_retry(held.attempt):
        return events.StepFailedEvent(error=codec.encode_error(error), **known)
    due_at = _next_attempt_at(step.policy, held.attempt, error, known["at"])
    return events.StepRetrying(error=codec.encode_error(error), due_at=due_at, **known)


def _next_attempt_at(policy: RetryPolicy, failed: int, error: BaseException, now: int) -> int:
    if issubclass(type(error), RetryableError):
        # It is the author's class: to read its attribute, or add a note to it, may raise anything.
        try:
            if error.retry_after is not None:  # type: ignore[attr-defined]
                return duration.due_at(error.retry_after, now)  # type: ignore[attr-defined]
        except Exception as senseless:
            with suppress(Exception):
                error.add_note(f"Its retry_after was left aside for the step's own backoff: {senseless}")
    return now + int(policy.delay_before(failed + 1, random()) * 1_000_000)
