"""
Runs one attempt of a step: claim it, call the author's function, record the outcome, send what follows.

The claim is committed before the function runs, and every later write needs it.  So an attempt that was given up
meanwhile, since its process seemed dead, can record nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import random
from typing import Any

from sqlalchemy import Connection

from .. import codec, current, duration, events, failpoints, measures
from ..engine import Engine
from ..errors import DecryptionError, FatalError, PayloadMissing, RetryableError, SerializationError
from ..http import Request
from ..registry import RetryPolicy, Step, definitions
from ..sandbox import ends_process, log_records
from ..store import REFERENCE, Claim, StepRow, requests, retry_until_available
from ..turns import admit_after
from . import event_loop
from .claim import Address, claim
from .outcome import count, is_held, record, release, write
from .pause import pause_limit
from .running_attempt import RunningAttempt, describe

log = log_records.get("durable.steps")

#: What Python says of ``await`` before a value, in 3.11 and in 3.14.
_AWAITED = re.compile(r"can't be (used in 'await' expression|awaited)")


class StepBody:
    """What an attempt runs, and how its failure is recorded and logged."""

    def __init__(self, step: Step[..., Any]) -> None:
        self.step = step

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Call the author's function."""
        return self.step.body(*args, **kwargs)

    def failure(self, running: RunningAttempt, error: BaseException) -> events.AttemptEnded:
        """Return the event of a failure: by the step's retry policy another attempt follows, or not."""
        held, end, policy = running.held, running.ending(), self.step.policy
        is_final = issubclass(type(error), (FatalError, PayloadMissing, SerializationError))
        with suppress(Exception):  # a check that fails costs the step no attempt
            running.cancellation.check()
        if running.cancellation.given_up or is_final or not policy.may_retry(held.attempt):
            return end.failed(error)
        due_at = _next_attempt_at(policy, held.attempt, error, end.at)
        return end.retrying(error, due_at)

    def log_failure(self, running: RunningAttempt, ended: events.AttemptEnded) -> None:
        """Log how the attempt failed, once that is recorded."""
        held, error = running.held, running.error
        if error is None:
            return
        if isinstance(ended, events.StepRetrying):
            retried = "Step %s of run %s, attempt %d: %r; will be tried again."
            log.warning(retried, held.name, held.run_id, held.attempt, error)
        elif running.cancellation.given_up:
            log.info("Step %s of run %s ended after its call was given up: %r", held.name, held.run_id, error)
        else:
            log.error("Step %s of run %s failed: %r", held.name, held.run_id, error, exc_info=error)


@dataclass(frozen=True, slots=True)
class Finished:
    """
    How an attempt ended.

    Attributes:
        ended: The event that was recorded, unless the attempt had lost its claim.
        error: What the function raised, or why its result could not be recorded; None for a success.
        given_up: Whether the workflow had given up the call before.
    """

    ended: events.AttemptEnded
    error: BaseException | None
    given_up: bool


#: Records an outcome in the turn that it asks for.  Returns False when it cannot.
Conclude = Callable[[Claim, events.AttemptEnded], bool]


def attempt(
    engine: Engine,
    step: Step[..., Any],
    address: Address,
    message_id: str | None,
    body: StepBody | None = None,
    conclude: Conclude | None = None,
) -> Finished | None:
    """Run the attempt that a message carries.  Return None when there is nothing to run."""
    engine.check_schema()
    try:
        held = claim(engine, step, address, message_id)
    except DecryptionError as unreadable:
        log.error("Step %s of run %s is left for a worker that can read it: %s", step.name, address.run, unreadable)
        return None
    return None if held is None else run_claimed(engine, held, body or StepBody(step), conclude)


def run_claimed(engine: Engine, held: Claim, body: StepBody, conclude: Conclude | None) -> Finished:
    """Run an attempt that this process has claimed."""
    engine.running.add(held.claim)
    waited = 0 if held.scheduled_at is None else held.claimed_at - held.scheduled_at
    engine.measures.observe(measures.START_DELAY_SECONDS, waited, held.name)
    try:
        running = _describe(engine, body.step, held)
        failpoints.hit("step.claimed")
        token = current.running_step.set(running)
        try:
            with engine.tracing.attempt(held) as span:
                ended = _call(engine, body, running)
                if running.error is not None:
                    span.fail(running.error)
        except BaseException as error:
            running.roll_back()
            with suppress(Exception):
                running.finish_streams()
            _leave(engine, held, error, has_begun=running.has_begun)
            raise
        finally:
            current.running_step.reset(token)
        failpoints.hit("step.finished")

        # In place: one transaction for the outcome and the turn that takes it in.
        is_alone = running.transaction is None and not running.closes_streams
        if conclude is not None and is_alone and conclude(held, ended):
            count(engine, held, ended)
            body.log_failure(running, ended)
            admit_after(engine, held)
            return Finished(ended, running.error, running.cancellation.given_up)

        ended, next_attempt = _record(engine, body, running, ended)
        failpoints.hit("step.recorded")
        if running.closes_streams:
            engine.notifier.notify_subscribers(held.run_id)
        pause_limit(engine, held, running.error, ended)
        if next_attempt is not None and not engine.dispatch.send_step(next_attempt) and engine.on_due is not None:
            engine.on_due(next_attempt.not_before)
        admit_after(engine, held)
        engine.tracing.batch.flush()
        return Finished(ended, running.error, running.cancellation.given_up)
    finally:
        engine.running.discard(held.claim)


def _describe(engine: Engine, step: Step[..., Any], held: Claim) -> RunningAttempt:
    try:
        return describe(engine, step, held)
    except BaseException as error:
        _leave(engine, held, error, has_begun=False)
        raise


def _leave(engine: Engine, held: Claim, error: BaseException, *, has_begun: bool) -> None:
    """
    Leave the attempt to another process, which does not count: this one is being stopped, or lacks a key, say.

    Unless *error* ends this process, it could take the attempt again at once: so it waits.
    """
    delay = 0 if ends_process(error) else engine.settings.resend_after
    retry_until_available(lambda: release(engine, held, has_begun=has_begun, delay=delay))


def _call(engine: Engine, body: StepBody, running: RunningAttempt) -> events.AttemptEnded:
    """Call the author's function.  Return its outcome as the event that ends the attempt."""
    step = body.step
    try:
        args, kwargs = _arguments(engine, step, running.held)
        running.has_begun = True

        def invoke() -> Any:
            result = body.run(*args, **kwargs)
            return _run_async(engine, running, result) if asyncio.iscoroutine(result) else result

        with engine.tracing.variables.entered(running.held.trace_context):
            result = running.within_limit(invoke)
        fitting = codec.fit(result, step.return_annotation, f"result of {step.name}")
        text = codec.encode(fitting, "result")
        running.flush()
        running.finish_streams()
    except BaseException as error:
        # Not a failure of the step: its process ends, or lacks the key to a value.
        if ends_process(error) or isinstance(error, DecryptionError):
            raise
        failed = _failed(body, running, error)
        with suppress(Exception):  # the failure is what counts
            running.finish_streams()
        return failed
    return running.ending().completed(text)


def _arguments(engine: Engine, step: Step[..., Any], held: Claim) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the step's arguments, with large values and webhook requests that the claim did not bring along."""

    def load() -> tuple[str, Mapping[str, Request]]:
        with engine.store.read() as tx:
            text = engine.store.vault.fetch(tx, held.run_id, held.args) or ""
            return text, requests.load(tx, codec.request_ids(text))

    needs_more = held.args.startswith(REFERENCE) or codec.request_ids(held.args) - held.requests.keys()
    text, loaded = retry_until_available(load) if needs_more else (held.args, held.requests)
    bound = codec.decode_call(text, loaded, step.signature)
    definitions.fit_arguments(step, bound)
    return bound.args, bound.kwargs


def _run_async(engine: Engine, attempt: RunningAttempt, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Wait for a coroutine's result.  Housekeeping and the deadline can interrupt it meanwhile."""
    running = event_loop.RunningCoroutine(coroutine)
    engine.interrupts[attempt.held.claim] = running.cancel
    if attempt.limit is not None:
        attempt.limit.interrupt, attempt.limit.abandon = running.cancel, running.abandon
    try:
        return running.result()
    finally:
        engine.interrupts.pop(attempt.held.claim, None)


def _failed(body: StepBody, running: RunningAttempt, error: BaseException) -> events.AttemptEnded:
    """Return the event of a failure, even when the error itself raises while it is examined."""
    running.error = error
    if type(error) is TypeError and _AWAITED.search(str(error)):
        error.add_note(
            "If this line awaits a call of a step: in a step, a call of another step runs its function and returns its"
            " result, so remove `await`.  To run it as a step of its own, await it in the workflow."
        )
    try:
        return body.failure(running, error)
    except BaseException as trouble:
        if ends_process(trouble):
            raise
        return running.ending().failed(error)


def _next_attempt_at(policy: RetryPolicy, failed: int, error: BaseException, now: int) -> int:
    """Return when the attempt after number *failed* may start: ``retry_after`` of the error, or the step's backoff."""
    if issubclass(type(error), RetryableError):
        # It is the author's class: to read its attribute, or to add a note to it, may raise anything.
        try:
            if error.retry_after is not None:  # type: ignore[attr-defined]
                return duration.due_at(error.retry_after, now)  # type: ignore[attr-defined]
        except Exception as invalid:
            with suppress(Exception):
                error.add_note(f"Its retry_after was ignored, and the step's own backoff used: {invalid}")
    return now + int(policy.delay_before(failed + 1, random()) * 1_000_000)


def _record(
    engine: Engine, body: StepBody, running: RunningAttempt, ended: events.AttemptEnded
) -> tuple[events.AttemptEnded, StepRow | None]:
    """
    Record the outcome, then log it.  Return it, and the next attempt if there is one to be sent.

    A transactional step that returned commits what it wrote with its outcome, and fails if that fails.
    """
    held, own = running.held, running.transaction
    if own is not None and own.tx is not None and isinstance(ended, events.StepCompleted):
        completed = ended

        def write_outcome(tx: Connection) -> bool:
            return write(engine, tx, held, completed, closes_streams=running.closes_streams).is_current

        try:
            if not own.commit(write_outcome):
                log.warning("Attempt %d of %s was given up: nothing of it is written.", held.attempt, held.name)
            else:
                count(engine, held, completed)
            return ended, None
        except BaseException as error:
            # Of the database, or of one of the application's listeners on its session.
            if ends_process(error):
                raise
            own.close()
            if not retry_until_available(lambda: is_held(engine, held)):
                return ended, None  # it was committed, whatever the error says; or the attempt was given up
            ended = _failed(body, running, error)
        finally:
            own.close()
    else:
        running.roll_back()
    next_attempt = retry_until_available(lambda: record(engine, held, ended, closes_streams=running.closes_streams))
    body.log_failure(running, ended)
    return ended, next_attempt
