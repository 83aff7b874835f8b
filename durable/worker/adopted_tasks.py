"""
An application's own Celery task that carries an attempt of a step.

The task's ``run`` and ``retry`` are wrapped.  Without an attempt in the message
both do what they did, so the task's other callers notice nothing.  With one,
the arguments come from the log, and what the task does is recorded before
Celery hears of it: its result backend, signals and handlers work as ever.
Only a retry is not Celery's to send: it is a row first, like any next attempt.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from typing import Any

from celery.exceptions import Ignore, Reject, Retry
from celery.utils.time import maybe_make_aware
from sqlalchemy.exc import SQLAlchemyError

from .. import codec, current, duration, events, registry
from ..attempts import Address, AttemptEnd, Body, RunningAttempt, attempt
from ..engine import Engine
from ..errors import ConfigurationError, StepFailed
from ..recovery import housekeeping
from ..registry import AdoptedStep, Step
from ..sandbox import log_records

log = log_records.get("durable.carrying")


def install(engine: Engine, step: AdoptedStep[..., Any]) -> None:
    """Have the task of the engine's app carry the step's attempts; Celery has made its tasks."""
    task = engine.celery.tasks.get(step.name)
    if task is None:
        log.error(
            "The Celery task %s, which is a step, is not registered with the app %r: its attempts cannot run"
            " here.  Register it with the app that the engine was made for.",
            step.name,
            engine.celery.main,
        )
        return
    # A second engine of the same app takes the first one's place, a second step(task) the first's.
    if isinstance(task.run, Carrier):
        task.run.remove()
    Carrier(engine, step, task)


def remove(engine: Engine) -> None:
    """Leave the tasks that carry attempts for this engine as they were."""
    for task in engine.celery.tasks.values():
        if isinstance(task.run, Carrier) and task.run.engine is engine:
            task.run.remove()


def check(engine: Engine) -> None:
    """Raise ConfigurationError for what cannot be a step, which Celery's signals would only log."""
    for step in tuple(registry.unnamed):
        registry.enter(step)
    for task in engine.celery.tasks.values():
        if isinstance(getattr(type(task), "run", None), Step):
            raise ConfigurationError(
                f"{task.name} is a @step with @app.task above it, and is a Celery task by itself already."
                "  Take @app.task away; or put @step above it, and the task becomes a step."
            )


class Carrier:
    """What stands in for the ``run`` of a task that is a step, and its ``retry``."""

    def __init__(self, engine: Engine, step: AdoptedStep[..., Any], task: Any) -> None:
        self.engine = engine
        self._step = step
        self._task = task
        self._run, self._retry = task.run, task.retry
        functools.update_wrapper(self, task.run, updated=())
        task.run, task.retry = self, self.retry

    def remove(self) -> None:
        """Leave the task as it was."""
        if self._task.run is self:
            self._task.run, self._task.retry = self._run, self._retry

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        address = Address.of(self._task.request)
        if address is None or _runs_here(address):
            return self._run(*args, **kwargs)
        return self._carry(address, self._task.request)

    def _carry(self, address: Address, request: Any) -> Any:
        engine = self.engine
        housekeeping.ensure(engine)
        engine.progress.note(request)
        body = TaskBody(self._step, self._run)
        claimed = attempt(engine, self._step, address, request.id, body)
        if claimed and body.error is None:
            if not request.chain:  # eager
                self._drive(address.run)
            return body.result
        # Celery sends a chain's link after a success only.
        self._drive(address.run)
        raise _for_celery(body.error) or Ignore(
            f"Attempt {address.attempt} of {address.op} in run {address.run} is not to be run."
        )

    def _drive(self, run_id: str) -> None:
        try:
            self.engine.wake(run_id)
        except SQLAlchemyError as error:
            log.warning("No turn of run %s was sent (%s); the sweep sends it later.", run_id, type(error).__name__)

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        """``Task.retry``, which leaves the sending to us while it decides about an attempt."""
        request = self._task.request
        address = Address.of(request)
        if address is None or not _runs_here(address):
            return self._retry(*args, **kwargs)
        was_eager = request.is_eager
        request.is_eager = True  # then Celery raises its Retry, and publishes nothing
        try:
            return self._retry(*args, **kwargs)
        finally:
            request.is_eager = was_eager


class TaskBody(Body):
    """
    The task's own function, and what Celery is to hear of it.

    Attributes:
        result, error: What it returned or raised; an error also when the result could not be recorded.
    """

    def __init__(self, step: AdoptedStep[..., Any], run: Callable[..., Any]) -> None:
        super().__init__(step)
        self.run_task = run
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The task's function, with Celery's own retries around it."""
        self.result = self.run_task(*args, **kwargs)
        return self.result

    def failure(self, running: RunningAttempt, error: BaseException) -> events.AttemptEnded:
        """What the task decided by its exception, by Celery's rules."""
        self.error = error
        end = running.ending()
        match error:
            case Retry() if _has_arguments(error):
                reason = "retries with other arguments, and those of a step are in its run's log"
            case Retry():
                return self._retried(error, end)
            case Ignore() | Reject():
                reason = "ends without a result, and a step needs one"
            case _:
                return end.failed(error)
        told = StepFailed(type(error).__name__, f"{self.step.name} {reason} ({error})", attempts=running.held.attempt)
        return end.failed(told)

    def log_failure(self, running: RunningAttempt, ended: events.AttemptEnded) -> None:
        """Log nothing: Celery logs the failure itself."""

    def _retried(self, error: Retry, end: AttemptEnd) -> events.StepRetrying:
        error.sig = None  # what an eager task.apply() would run at once
        return end.retrying(error if error.exc is None else error.exc, _due_at(error.when, end.at))


def _runs_here(address: Address) -> bool:
    """Whether this attempt has begun in this context: a call of the task in it is a plain call."""
    running: Any = current.running_step.get()
    return running is not None and Address(running.held.run_id, running.held.op_id, running.held.attempt) == address


def _for_celery(error: BaseException | None) -> Exception | None:
    """What Celery is to hear: anything but an Exception would end the worker, or its child."""
    if error is None or isinstance(error, Exception):
        return error
    told = StepFailed(type(error).__name__, codec.error_summary(codec.encode_error(error)).message)
    return told.with_traceback(error.__traceback__)


def _has_arguments(error: Retry) -> bool:
    return error.sig is not None and bool(error.sig.args or error.sig.kwargs)


def _due_at(when: float | datetime | None, now: int) -> int:
    """When Celery would run a retry; a naive moment is UTC, as it is there."""
    if isinstance(when, datetime):
        return max(now, duration.from_datetime(maybe_make_aware(when)))
    return now + int(max(0, when or 0) * 1_000_000)
