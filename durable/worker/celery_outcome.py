"""
An attempt that failed is a failed task to Celery: to its signals, its events, its log, and the tools that use them.

The outcome is recorded first.  Then the step's task raises the step's own exception, or ``Retry`` where another
attempt follows.  Celery sends the next message of a chain only after a success, so durable sends that message itself.
"""

from __future__ import annotations

from typing import Any

from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Retry, TaskPredicate
from celery.utils.serialization import get_pickleable_exception

from .. import codec, events
from ..attempts import Finished
from ..broker import celery_internals
from ..engine import Engine
from ..errors import StepFailed
from ..sandbox import ends_process

#: What a worker's main process acts on: it drops, requeues or acknowledges the message, or ends itself.
_COMMANDS = (TaskPredicate, WorkerLostError, TimeLimitExceeded, Terminated, MemoryError)


def raise_failure(engine: Engine, request: Any, run_id: str, finished: Finished) -> None:
    """
    Raise what Celery is to see of an attempt; return if it succeeded, or if its call was given up before it ended.

    Raises:
        Retry: Another attempt follows, ``when`` seconds after this one ended.
        Exception: The step's own exception.
    """
    if finished.error is None or finished.given_up:
        return
    if celery_internals.next_in_chain(request) is not None:
        engine.send_turns(run_id)
    error = for_celery(finished.error)
    if isinstance(finished.ended, events.StepRetrying):
        seconds = max(0.0, (finished.ended.due_at - finished.ended.at) / 1_000_000)
        raise Retry(exc=error, when=round(seconds, 3)) from error
    raise error


def for_celery(error: BaseException) -> Exception:
    """
    The exception to raise to Celery: the step's own, or a ``StepFailed`` with its text in place of one that does harm.

    Celery ends its process at an exception that is no ``Exception``, takes some for commands, and fails when the
    exception's own methods raise.
    """
    if issubclass(type(error), Exception) and not issubclass(type(error), _COMMANDS):
        try:
            str(error), repr(error), get_pickleable_exception(error)
            return error  # type: ignore[return-value]
        except BaseException as trouble:
            if ends_process(trouble):
                raise
    failed = StepFailed(type(error).__name__, codec.error_summary(codec.encode_error(error)).message)
    return failed.with_traceback(error.__traceback__)
