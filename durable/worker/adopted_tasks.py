"""
Adopted tasks: an application's own Celery tasks that are steps.

This file wraps the task's ``run`` and ``retry``.  For a message without an attempt of a step, both work as before, so
nothing changes for other callers of the task.  For a message with one, the arguments come from the log, and the outcome
is recorded before Celery gets it: the task's result backend, signals and handlers work as before.  Only a retry is
different: Celery does not send it.  durable records it as the next attempt, and sends it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from typing import Any

from celery.exceptions import Ignore, Reject, Retry, TaskPredicate
from celery.utils.time import maybe_make_aware

from .. import current, duration, events, registry
from ..attempts import Address, RunningAttempt, StepBody, attempt
from ..broker import celery_internals
from ..engine import Engine
from ..errors import ConfigurationError, StepFailed
from ..recovery import housekeeping
from ..registry import AdoptedStep, Step
from ..sandbox import log_records
from . import foreign, sentry
from .celery_outcome import for_celery

log = log_records.get("durable.carrying")


def install(engine: Engine, step: AdoptedStep[..., Any]) -> None:
    """Wrap the task of the engine's app, so that it runs the step's attempts.  The app is finalized by now."""
    task = engine.celery.tasks.get(step.name)
    if task is None:
        log.error(
            "The Celery task %s, which is a step, is not registered with the app %r, so its attempts cannot run"
            " here.  Register it with the app that the engine was made for.",
            step.name,
            engine.celery.main,
        )
        return
    # A second engine of the app replaces the first one, and a second step(task) replaces the first.
    if isinstance(task.run, AdoptedRun):
        task.run.remove()
    AdoptedRun(engine, step, task)


def remove(engine: Engine) -> None:
    """Unwrap the tasks that run attempts for this engine."""
    for task in engine.celery.tasks.values():
        if isinstance(task.run, AdoptedRun) and task.run.engine is engine:
            task.run.remove()


def check(engine: Engine) -> None:
    """Raise ConfigurationError for tasks that cannot be steps."""
    for step in tuple(registry.unnamed):
        registry.register(step)
    for task in engine.celery.tasks.values():
        if isinstance(getattr(type(task), "run", None), Step):
            raise ConfigurationError(
                f"{task.name} is a @step with @app.task above it.  A step has a Celery task of its own already.  Take"
                " @app.task away; or put @step above @app.task, and the application's task becomes a step."
            )


class AdoptedRun:
    """Replaces the ``run`` and the ``retry`` of a task that is a step."""

    def __init__(self, engine: Engine, step: AdoptedStep[..., Any], task: Any) -> None:
        self.engine = engine
        self._step = step
        self._task = task
        self._run, self._retry = task.run, task.retry
        functools.update_wrapper(self, task.run, updated=())
        task.run, task.retry = self, self.retry

    def remove(self) -> None:
        """Put the task's own ``run`` and ``retry`` back."""
        if self._task.run is self:
            self._task.run, self._task.retry = self._run, self._retry

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        request, engine = self._task.request, self.engine
        address = Address.of(request)
        if address is None or _is_running(address):
            # A plain call: by another caller, or by the step's own function.
            return self._run(*args, **kwargs)
        housekeeping.ensure(engine)
        foreign.give_back(engine, request)
        engine.progress.note(request)
        sentry.tag(address.run, self._step.name, address.attempt)
        sentry.note_retry(engine, self._step.name, address)
        body = TaskBody(self._step, self._run)
        finished = attempt(engine, self._step, address, request.id, body)
        if finished is not None and body.error is None:
            if celery_internals.next_in_chain(request) is None:  # in eager mode
                engine.send_turns(address.run)
            return body.result
        # Celery sends the next message of a chain after a success only.
        engine.send_turns(address.run)
        if body.error is not None:
            # By Celery's own rules: the task may retry, or ask for its message to be dropped.
            raise body.error if isinstance(body.error, TaskPredicate) else for_celery(body.error)
        raise Ignore(
            f"Attempt {address.attempt} of {address.op} in run {address.run} was not run: it has ended, another"
            " process runs it, or it is not due."
        )

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        """``Task.retry``; in an attempt it raises ``Retry`` and sends nothing, since durable sends the next attempt."""
        request = self._task.request
        address = Address.of(request)
        if address is None or not _is_running(address):
            return self._retry(*args, **kwargs)
        with celery_internals.retries_unsent(request):
            return self._retry(*args, **kwargs)


class TaskBody(StepBody):
    """
    The body of an attempt: the task's own function.

    Attributes:
        result: What the function returned.
        error: What it raised, or why its result could not be recorded.
    """

    def __init__(self, step: AdoptedStep[..., Any], run: Callable[..., Any]) -> None:
        super().__init__(step)
        self.run_task = run
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task's function, with Celery's own retries around it."""
        self.result = self.run_task(*args, **kwargs)
        return self.result

    def failure(self, running: RunningAttempt, error: BaseException) -> events.AttemptEnded:
        """The outcome that the exception means by Celery's rules: a retry, or a failure."""
        self.error = error
        end = running.ending()
        match error:
            case Retry() if error.sig is not None and (error.sig.args or error.sig.kwargs):
                reason = "retries with other arguments, and those of a step are in its run's log"
            case Retry():
                error.sig = None  # what an eager task.apply() would run at once
                return end.retrying(error if error.exc is None else error.exc, _due_at(error.when, end.at))
            case Ignore() | Reject():
                reason = "ends without a result, and a step needs one"
            case _:
                return end.failed(error)
        failed = StepFailed(type(error).__name__, f"{self.step.name} {reason} ({error})", attempts=running.held.attempt)
        return end.failed(failed)

    def log_failure(self, running: RunningAttempt, ended: events.AttemptEnded) -> None:
        """Log nothing: Celery logs the failure of a task itself."""


def _is_running(address: Address) -> bool:
    """Whether this attempt runs in this context already, so that a call of the task is a plain call."""
    running: Any = current.running_step.get()
    return running is not None and Address(running.held.run_id, running.held.op_id, running.held.attempt) == address


def _due_at(when: float | datetime | None, now: int) -> int:
    """When Celery would run a retry; Celery takes a naive datetime for UTC."""
    if isinstance(when, datetime):
        return max(now, duration.from_datetime(maybe_make_aware(when)))
    return now + int(max(0, when or 0) * 1_000_000)
