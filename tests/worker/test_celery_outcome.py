"""The exceptions of steps, as Celery gets them."""

from __future__ import annotations

import pickle

import pytest
from billiard.exceptions import WorkerLostError
from celery.exceptions import Ignore, Reject, Retry

from durable.errors import StepFailed
from durable.worker.celery_outcome import for_celery


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
