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
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import random
from typing import Any, TypeVar

from . import aio, codec, current, duration, events, registry
from .context import StepMetadata, WorkflowMetadata
from .engine import Engine
from .errors import FatalError, RetryableError, SerializationError, StepFailed
from .http import Response
from .processes import Identity, identify, is_gone
from .registry import Step
from .retry import RetryPolicy
from .store import log as run_log
from .store import requests, runs, steps, unreachable
from .store.steps import Claim, Held, StepRow

#: How long a process waits between two tries to record an outcome while the database is away.
_PATIENCE_SECS = (0.1, 0.2, 0.5, 1.0, 2.0)

T = TypeVar("T")

log = logging.getLogger("durable.steps")


@dataclass(frozen=True, slots=True)
class Address:
    """Which attempt a message carries, as its header says."""

    run: str
    op: str
    attempt: int


@dataclass(kw_only=True)
class RunningAttempt:
    """The attempt that runs in this context: what ``get_step_metadata`` and ``respond_with`` see."""

    engine: Engine
    held: Claim
    metadata: StepMetadata
    workflow_metadata: WorkflowMetadata
    responded: list[str] = field(default_factory=list)

    def respond(self, request_id: str, response: Response) -> bool:
        """Answer a webhook request: first one wins, and only while this attempt is the current one."""
        with self.engine.store.begin() as tx:
            if not steps.is_held(tx, self.held):
                return False
            holder = requests.answer(tx, request_id, response, self.engine.store.now())
        if holder is None:
            return False
        self.responded.append(request_id)
        self.engine.hint(holder, request_id)
        return True


def attempt(engine: Engine, step: Step[..., Any], address: Address, message_id: str | None) -> None:
    """Run one attempt, if it is there to be run."""
    engine.check_schema()
    held = _claim(engine, address, message_id)
    if held is None:
        return
    engine.running.add(held.claim)
    try:
        _attempt(engine, step, held)
    finally:
        engine.running.discard(held.claim)


def _attempt(engine: Engine, step: Step[..., Any], held: Claim) -> None:
    running = _running(engine, held)
    token = current.running_step.set(running)
    try:
        ended = _call(engine, step, running)
    except BaseException:
        # The process is being stopped: hand the attempt back, uncounted.
        _until_recorded(lambda: _hand_back(engine, held))
        raise
    finally:
        current.running_step.reset(token)
    row = _until_recorded(lambda: _record(engine, held, ended))
    if row is not None and not engine.dispatch.step(row) and engine.on_due is not None:
        engine.on_due(row.not_before)


def _claim(engine: Engine, address: Address, message_id: str | None) -> Claim | None:
    def take() -> Claim | None:
        with engine.store.begin() as tx:
            return steps.claim(
                tx,
                address.run,
                address.op,
                address.attempt,
                by=secrets.token_hex(16),
                worker_id=engine.process_id,
                message_id=message_id,
                now=engine.store.sql_now,
            )

    held = take()
    if held is not None:
        return held
    with engine.store.read() as tx:
        not_before = steps.not_before(tx, address.run, address.op, address.attempt)
    if engine.is_nearly(not_before):
        return take()
    take_over(engine, address)
    return None


def take_over(engine: Engine, address: Address) -> None:
    """A message that came again: if the process that runs the attempt is gone from this host, give it up now."""
    with engine.store.read() as tx:
        held = steps.held(tx, address.run, address.op)
    if held is None or held.attempt != address.attempt or not _has_vanished(held, identify()):
        return
    row = give_up(engine, held)
    if row is not None:
        engine.dispatch.step(row)


def _has_vanished(held: Held, here: Identity) -> bool:
    if held.host is None or held.boot_id is None or held.pid is None or held.pid_started is None:
        return False
    return is_gone(Identity(held.host, held.boot_id, held.pid, held.pid_started), here)


def _running(engine: Engine, held: Claim) -> RunningAttempt:
    return RunningAttempt(
        engine=engine,
        held=held,
        metadata=StepMetadata(
            run_id=held.run_id,
            step_id=held.op_id,
            name=held.name,
            attempt=held.attempt,
            started_at=duration.to_datetime(held.started_at),
            idempotency_key=f"{held.run_id}:{held.op_id}",
        ),
        workflow_metadata=WorkflowMetadata(
            run_id=held.run_id,
            name=held.run_name,
            started_at=duration.to_datetime(held.run_started_at),
            public_url=engine.settings.public_url,
        ),
    )


def _call(engine: Engine, step: Step[..., Any], running: RunningAttempt) -> events.AttemptEnded:
    """Run the author's function; its outcome as the event that ends the attempt."""
    held = running.held
    try:
        args, kwargs = _arguments(engine, step, held)
        result = step.function(*args, **kwargs)
        if asyncio.iscoroutine(result):
            result = aio.run(result)
        fitting = codec.fit(result, step.return_annotation, f"result of {step.name}")
        text = codec.encode(fitting, "result")
    except (Exception, asyncio.CancelledError) as error:
        return _failure(engine, step, running, error)
    return events.StepCompleted(result=text, **_ended(engine, running))


def _arguments(engine: Engine, step: Step[..., Any], held: Claim) -> tuple[tuple[Any, ...], dict[str, Any]]:
    with engine.store.read() as tx:
        known = requests.load(tx, codec.request_ids(held.args))
    return codec.decode_arguments(held.args, known, step.signature)


def _failure(
    engine: Engine, step: Step[..., Any], running: RunningAttempt, error: BaseException
) -> events.AttemptEnded:
    held = running.held
    text = codec.encode_error(error)
    known = _ended(engine, running)
    if isinstance(error, FatalError | SerializationError) or not step.policy.may_retry(held.attempt):
        log.error("Step %s of run %s failed: %r", held.name, held.run_id, error, exc_info=error)
        return events.StepFailed(error=text, **known)
    due_at = _next_attempt_at(step.policy, held.attempt, error, known["at"])
    log.warning("Step %s of run %s, attempt %d: %r; will be tried again.", held.name, held.run_id, held.attempt, error)
    return events.StepRetrying(error=text, due_at=due_at, **known)


def _next_attempt_at(policy: RetryPolicy, failed: int, error: BaseException, now: int) -> int:
    backoff = now + int(policy.delay_before(failed + 1, random()) * 1_000_000)
    if isinstance(error, RetryableError) and error.retry_after is not None:
        return duration.due_at(error.retry_after, now)
    return backoff


def _ended(engine: Engine, running: RunningAttempt) -> dict[str, Any]:
    here = identify()
    return {
        "at": engine.now(),
        "op_id": running.held.op_id,
        "attempt": running.held.attempt,
        "started_at": running.held.claimed_at,
        "worker": f"{here.host}:{here.pid}",
        "responded": tuple(running.responded),
    }


def _record(engine: Engine, held: Claim | Held, ended: events.AttemptEnded) -> StepRow | None:
    """Put the outcome into the run's inbox; the next attempt if there is one, None when nothing is to be sent."""
    with engine.store.begin() as tx:
        now = engine.store.now()
        if isinstance(ended, events.StepRetrying):
            send_at = engine.dispatch.first_send_at(ended.due_at, now)
            ours = steps.again(tx, held, counted=True, not_before=ended.due_at, send_at=send_at)
        else:
            ours = steps.end(tx, held)
        if not ours:
            log.warning(
                "Attempt %d of %s in run %s was given up: its outcome is not recorded.",
                held.attempt,
                held.op_id,
                held.run_id,
            )
            return None
        run_log.post(tx, held.run_id, ended, send_at=now + engine.settings.resend_after)
        if not isinstance(ended, events.StepRetrying):
            return None
        return StepRow(held.run_id, held.op_id, held.name, held.attempt + 1, ended.due_at, *_route(tx, held.run_id))


def _route(tx: Any, run_id: str) -> tuple[str | None, int | None]:
    run = runs.find(tx, run_id)
    return (None, None) if run is None else (run.queue, run.priority)


def _hand_back(engine: Engine, held: Claim) -> None:
    with engine.store.begin() as tx:
        now = engine.store.now()
        steps.again(tx, held, counted=False, not_before=now, send_at=now)


def give_up(engine: Engine, held: Held) -> StepRow | None:
    """The attempt's process is gone: the next attempt, or failure when they are spent."""
    now = engine.now()
    lost = codec.encode_error(
        StepFailed(
            "WorkerLost",
            f"the process that ran attempt {held.attempt} of {held.name} died, or could not reach the database",
            attempts=held.attempt,
        )
    )
    known: dict[str, Any] = {
        "at": now,
        "op_id": held.op_id,
        "attempt": held.attempt,
        "started_at": held.claimed_at,
        "worker": f"{held.host}:{held.pid}",
        "error": lost,
    }
    if _policy(held.name).may_retry(held.attempt):
        return _record(engine, held, events.StepRetrying(due_at=now, **known))
    return _record(engine, held, events.StepFailed(**known))


def _policy(name: str) -> RetryPolicy:
    known = registry.steps.get(name)
    return RetryPolicy() if known is None else known.policy


def _until_recorded(write: Callable[[], T]) -> T:
    """
    Do a write again until the database takes it.

    The write is guarded by the claim, so that one whose commit was applied but not acknowledged finds
    nothing to do the second time.
    """
    tries = 0
    while True:
        try:
            return write()
        except Exception as error:
            if not unreachable(error):
                raise
            pause = _PATIENCE_SECS[min(tries, len(_PATIENCE_SECS) - 1)]
            log.warning(
                "The database does not take an outcome (%s); trying again in %s s.", type(error).__name__, pause
            )
            time.sleep(pause)
            tries += 1
