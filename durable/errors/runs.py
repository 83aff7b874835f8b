"""Errors of runs: how one has ended, and why one cannot be found or started."""

from __future__ import annotations

from .base import DurableError


class RunNotFound(DurableError):
    """Raised when no run has this id.  Attribute: ``run_id``."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return (
            f"There is no run {self.run_id!r} in this database.  Its start may have been rolled back, it"
            " may have been deleted after its retention, or it is in another database: compare DURABLE_DATABASE_URL."
        )


class ValueNotPublished(DurableError):
    """Raised when a run has ended without publishing the value that you ask for.  Attributes: ``run_id``, ``name``."""

    def __init__(self, run_id: str, name: str, status: str) -> None:
        super().__init__(run_id, name, status)
        self.run_id = run_id
        self.name = name
        self.status = status

    def __str__(self) -> str:
        return (
            f"Run {self.run_id!r} is {self.status} and has not published {self.name!r}.  Run.values() has what it has"
            " published, and Run.result() tells how it ended."
        )


class RunFailed(DurableError):
    """
    Raised by ``Run.result()``, or by awaiting a child run, when that run has failed.

    ``__cause__`` is the original exception, if its class is imported in this process.

    Attributes:
        run_id, error_type, message: The run, and the class name and text of its error.
        traceback: The traceback as text, from the process where it was raised.
    """

    def __init__(self, run_id: str, error_type: str, message: str, traceback: str = "") -> None:
        super().__init__(run_id, error_type, message, traceback)
        self.run_id = run_id
        self.error_type = error_type
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"Run {self.run_id!r} failed: {self.error_type}: {self.message}"


class LogTooLong(DurableError):
    """
    The error of a run that failed because its log would have more events than the setting ``max_events``.

    Attributes:
        run_id: The run.
        wanted: How many events the log would have.
        limit: How many it may have.
        where: Your line that asked for the last one, ``file:line``, if it is known.
    """

    def __init__(self, run_id: str, wanted: int, limit: int, where: str | None = None) -> None:
        super().__init__(run_id, wanted, limit, where)
        self.run_id = run_id
        self.wanted = wanted
        self.limit = limit
        self.where = where

    def __str__(self) -> str:
        last = f" (the last is asked for at {self.where})" if self.where else ""
        return (
            f"The log of run {self.run_id!r} would have {self.wanted} events{last}, and the setting max_events allows"
            f" {self.limit}.  A workflow that runs for ever should call continue_as_new(...) once"
            " should_continue_as_new() is true: its next generation has an empty log, and keeps its hooks and webhooks."
            "  One that calls very many steps should call them in child runs.  Look also for a loop that never awaits."
        )


class RunCancelled(DurableError):
    """
    Raised by ``Run.result()`` when the run was cancelled.

    ``__cause__`` is the exception that its cleanup raised, if any.  Attributes: ``run_id``, ``reason``.
    """

    def __init__(self, run_id: str, reason: str | None = None) -> None:
        super().__init__(run_id, reason)
        self.run_id = run_id
        self.reason = reason

    def __str__(self) -> str:
        return f"Run {self.run_id!r} was cancelled" + (f": {self.reason}" if self.reason else ".")


class ForkRefused(DurableError):
    """Raised when a run cannot be forked as you ask.  Nothing is written.  Attributes: ``run_id``, ``reason``."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(run_id, reason)
        self.run_id = run_id
        self.reason = reason

    def __str__(self) -> str:
        return f"Run {self.run_id!r} was not forked: {self.reason}."


class ScheduleNotFound(DurableError):
    """Raised when no schedule has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"There is no schedule {self.name!r}.  It may be deleted, or no live worker declares it any more."
            "  `durable schedules list` shows all schedules."
        )


class RunConflict(DurableError):
    """Raised when a run id or an idempotency key is used again with other arguments."""

    def __init__(self, key: str, run_id: str) -> None:
        super().__init__(key, run_id)
        self.key = key
        self.run_id = run_id

    def __str__(self) -> str:
        return (
            f"{self.key!r} started run {self.run_id!r}, of another workflow or with other arguments."
            "  Use a new key, or derive the key from what makes the run unique."
        )
