"""Errors of steps: those that a step raises to steer its retries, and those that durable raises."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from .base import DurableError


class StepFailed(DurableError):
    """
    Raised where you await a failed step whose exception cannot be rebuilt in this process.

    Attributes:
        error_type, message, traceback: The class name, text and traceback of the original exception.
        attempts: How many attempts were made.
    """

    def __init__(self, error_type: str, message: str, traceback: str = "", attempts: int = 1) -> None:
        super().__init__(error_type, message, traceback, attempts)
        self.error_type = error_type
        self.message = message
        self.traceback = traceback
        self.attempts = attempts

    def __str__(self) -> str:
        return f"{self.error_type}: {self.message}"


class StepTimeout(StepFailed):
    """
    The error of an attempt that takes longer than its step's ``timeout``.

    It is retried like any failure, and raised where you await the step if the last attempt fails with it.  It has the
    attributes of StepFailed; ``error_type`` is "StepTimeout".
    """

    def __str__(self) -> str:
        return self.message


class AttemptLost(DurableError):
    """
    Raised by ``heartbeat`` in an attempt that no longer counts: its result will not be recorded, so let it end.

    Attributes: ``step``, its name, and ``attempt``, its number.
    """

    def __init__(self, step: str, attempt: int) -> None:
        super().__init__(step, attempt)
        self.step = step
        self.attempt = attempt

    def __str__(self) -> str:
        return (
            f"Attempt {self.attempt} of {self.step} was given up: it took too long, or its process seemed dead."
            "  Its result will not be recorded; another attempt may run already."
        )


class NotInDoubt(DurableError):
    """
    Raised by ``Run.resolve`` when no step is in doubt, or more than one and you named none.

    Attributes: ``run_id``, and ``doubts``, the ids of the steps of this run that are in doubt.
    """

    def __init__(self, run_id: str, doubts: Sequence[str], step: str | None = None) -> None:
        super().__init__(run_id, doubts, step)
        self.run_id = run_id
        self.doubts = doubts
        self.step = step

    def __str__(self) -> str:
        if not self.doubts:
            return f"No step of run {self.run_id!r} is in doubt: there is nothing to resolve."
        listed = ", ".join(self.doubts)
        if self.step is not None:
            return f"Step {self.step!r} of run {self.run_id!r} is not in doubt.  In doubt: {listed}."
        return f"Several steps of run {self.run_id!r} are in doubt ({listed}): name one with --step, or step=…."


class FatalError(Exception):
    """Raise it in a step to fail the step without retries."""


class RetryableError(Exception):
    """
    Raise it in a step to have the step retried, not before *retry_after*.

    Attributes:
        retry_after: A duration or time as ``sleep`` takes it (``"10s"``, seconds, a timedelta, an aware
            datetime); None for the step's own backoff.
        pause: The name of one of the step's limits.  Until the retry, no attempt of the limit's key begins.
    """

    def __init__(
        self,
        message: str = "",
        retry_after: str | float | timedelta | datetime | None = None,
        pause: str | None = None,
    ) -> None:
        super().__init__(message, retry_after, *([] if pause is None else [pause]))
        self.message = message
        self.retry_after = retry_after
        self.pause = pause

    def __str__(self) -> str:
        return str(self.message)  # an author may pass any object
