"""The exceptions of steps, as Celery gets them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError
from celery.app.task import Context
from celery.exceptions import Ignore, Reject, Retry

from durable import events
from durable.attempts import Finished
from durable.errors import StepFailed
from durable.worker.celery_outcome import for_celery, raise_failure


class Unpicklable(Exception):
    """Its pickle raises what is no Exception."""

    def __reduce__(self):
        raise Odd("no pickle")


class Unprintable(Exception):
    """Has no text."""

    def __str__(self):
        raise RuntimeError("no text")


class Odd(BaseException):
    """Is no Exception."""


def raised(error: BaseException) -> BaseException:
    """The error with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_ordinary_error_is_raised_as_it_is():
    """So that Sentry groups by its type, and `throws` and handlers for it work."""
    error = raised(ValueError("no"))

    assert for_celery(error) is error


@pytest.mark.parametrize(
    "error",
    [
        Ignore(),
        Reject("no", requeue=True),
        Retry(exc=ValueError()),
        WorkerLostError("lost"),
        MemoryError("full"),
        Odd("odd"),
        SystemExit(3),
        KeyboardInterrupt(),
        Unprintable(),
        Unpicklable("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_celery_acts_on_is_replaced(error):
    """Celery would drop or requeue the message, or end its process; the replacement names the type, and pickles."""
    error = raised(error)
    replaced = for_celery(error)

    assert type(replaced) is StepFailed
    assert type(error).__name__ in str(replaced)
    assert replaced.__traceback__ is error.__traceback__
    pickle.loads(pickle.dumps(replaced))


def test_an_attempt_whose_call_was_given_up_is_a_success_for_celery():
    """Its failure is nobody's: the workflow has gone on without it."""
    ended = events.StepFailedEvent(at=2, op_id="r#1", attempt=1, started_at=1, worker="here:1", error="{}")
    engine: Any = None  # nothing is sent

    raise_failure(engine, None, "run-1", Finished(ended, ValueError("late"), given_up=True))

    with pytest.raises(ValueError, match="late"):
        raise_failure(engine, Context(), "run-1", Finished(ended, ValueError("late"), given_up=False))
