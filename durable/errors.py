"""
Every exception of durable.

::

    DurableError
    ├── ConfigurationError        a setting, a decorator or the wiring of the application is wrong
    │   └── SchemaOutOfDate       the database has another schema than the code needs
    ├── SerializationError        a value cannot be written to the log, or read from it
    ├── NonDeterministicCall      a workflow body makes a call that only a step may make
    ├── NotAwaited                a call of a workflow body is used without ``await`` (a TypeError)
    ├── NonDeterminismError       a replay does something else than its log records
    ├── WorkflowCodeError         a workflow body raised an error that says that its code is wrong
    ├── TurnTooLong               a turn used more CPU time, or took more time, than it may
    ├── TurnLost                  a turn ended its process, or hung, three times in a row
    ├── RunNotFound               no run has this id
    ├── RunFailed                 the run whose result you ask for has failed
    ├── LogTooLong                a run has more events than the setting max_events allows
    ├── RunCancelled              the run whose result you ask for was cancelled
    ├── RunConflict               a key or id is used again with other arguments
    ├── HookNotFound              no open hook has this token
    ├── HookClosed                a closed hook without queued payloads is awaited
    ├── HookConflict              another run holds the token
    ├── HookPayloadError          a payload does not fit the hook's type
    ├── StepFailed                a step failed, and its exception cannot be rebuilt in this process
    │   └── StepTimeout           an attempt took longer than its step's timeout
    ├── AttemptLost               heartbeat was called in an attempt that no longer counts
    ├── NotInDoubt                no step, or more than one, is in doubt
    ├── DecryptionError           this process's keys cannot read a stored value
    ├── PayloadMissing            a large value is missing from the payload store, or damaged
    ├── BodyNotLoaded             a workflow body reads a request's large body, which only steps can read
    └── BadRequestBody            a request's body does not have the format that it is read as (a ValueError)
    FatalError                    for you to raise: fail the step without retries
    RetryableError                for you to raise: retry the step after a delay

Each exception passes all its arguments to ``Exception.__init__``, so that it survives pickling: Celery's prefork
workers send exceptions through a pipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any


class DurableError(Exception):
    """The base of the errors that durable raises."""


class ConfigurationError(DurableError):
    """Raised when a setting, a decorator or the wiring of an application is wrong."""


class SchemaOutOfDate(ConfigurationError):
    """
    Raised when the database does not have the schema that this code needs.

    Attributes:
        found: The revision in the database, None for an empty one.
        needed: The revision that this code was written for.
    """

    def __init__(self, found: str | None, needed: str) -> None:
        super().__init__(found, needed)
        self.found = found
        self.needed = needed

    def __str__(self) -> str:
        return (
            f"The database has durable's schema {self.found or '(none)'}; this code needs {self.needed}."
            "  Run `durable migrate` (with --app, or DURABLE_DATABASE_URL set) and start again."
        )


class SerializationError(DurableError):
    """
    Raised when a value cannot be written to, or read from, the log.

    Attributes:
        path: The part of the value, e.g. ``args.order.items[3].price``.
        reason: What is wrong with that part, and what to do.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class NonDeterministicCall(DurableError):
    """
    Raised when a workflow body makes a call whose outcome a replay could not repeat.

    Attributes:
        call: The name of the call, e.g. ``time.sleep``.
        fix: What to do instead.
        where: Your line, ``file:line``, if it is known.
    """

    def __init__(self, call: str, fix: str = "move it into a step", where: str | None = None) -> None:
        super().__init__(call, fix, where)
        self.call = call
        self.fix = fix
        self.where = where

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.call} was called in a workflow body{place}, where no replay could repeat it: {self.fix}."


class NotAwaited(DurableError, TypeError, AttributeError):
    """
    Raised when a workflow body uses a call of a step, a child or ``sleep`` as a value, without ``await``.

    Attributes:
        call: The call, e.g. ``charge(...)``.
        use: What was done with it, e.g. ``compared``.
        where: Your line, ``file:line``, if it is known.
    """

    def __init__(self, call: str, use: str, where: str | None = None) -> None:
        super().__init__(call, use, where)
        self.call = call
        self.use = use
        self.where = where

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        is_condition = self.use == "tested as a condition"
        note = "  To test whether a variable holds a call, write `is not None`." if is_condition else ""
        return f"{self.call} was {self.use} without `await`{place}: write `await {self.call}`.{note}"


class NonDeterminismError(DurableError):
    """
    Raised when a replay does something else than its log records.

    Attributes:
        run_id: The run being replayed.
        op_id: The operation, by task path and ordinal (``r.1#3``).
        recorded: What the log records for this operation, or "nothing".
        asked: What the workflow asks for instead, or "nothing".
        where: Your line, ``file:line``, if it is known.
    """

    def __init__(self, run_id: str, op_id: str, recorded: str, asked: str, where: str | None = None) -> None:
        super().__init__(run_id, op_id, recorded, asked, where)
        self.run_id = run_id
        self.op_id = op_id
        self.recorded = recorded
        self.asked = asked
        self.where = where

    def __str__(self) -> str:
        return (
            f"Run {self.run_id!r} no longer matches its log at {self.op_id}"
            + (f" ({self.where})" if self.where else "")
            + f":\n  recorded  {self.recorded}\n  asked     {self.asked}\n"
            "The workflow's code has changed since the run began, or it reads a clock, a random number or the"
            " environment.  Read those in a step, or deploy code that matches and `durable runs retry` the run."
        )


class WorkflowCodeError(DurableError):
    """
    The reason of a blocked run: its workflow's body raised an error that says that the code is wrong.

    ``__cause__`` is the error.

    Attributes:
        run_id: The run.
        error_type, message: The class name and text of the error.
        where: Your line that raised it, ``file:line``, if it is known.
    """

    def __init__(self, run_id: str, error_type: str, message: str, where: str | None = None) -> None:
        super().__init__(run_id, error_type, message, where)
        self.run_id = run_id
        self.error_type = error_type
        self.message = message
        self.where = where

    def __str__(self) -> str:
        error = f"{self.error_type}: {self.message}" if self.message else self.error_type
        return (
            f"Run {self.run_id!r} is blocked by an error in its workflow's code"
            + (f", at {self.where}" if self.where else "")
            + f":\n  {error}\n"
            "This turn recorded nothing.  Correct the code, the settings or the installed packages, and restart the"
            " workers, or `durable runs retry` the run: it continues from its log.  If this error should fail the run,"
            " name its class in @workflow(failure_exceptions=...)."
        )


class TurnTooLong(DurableError):
    """
    The reason of a blocked run: a turn exceeded ``turn_cpu_limit`` (CPU time) or ``turn_timeout``.

    Attributes:
        run_id: The run whose turn was stopped.
        limit: The limit that it exceeded, in seconds.
        where: Your line that was running, ``file:line``, if it is known.
        hung: True if the turn took longer than ``turn_timeout``, because it waited for something.
    """

    def __init__(self, run_id: str, limit: float, where: str | None = None, hung: bool = False) -> None:
        super().__init__(run_id, limit, where, hung)
        self.run_id = run_id
        self.limit = limit
        self.where = where
        self.hung = hung

    def __str__(self) -> str:
        what, setting = ("of waiting", "turn_timeout") if self.hung else ("of CPU time", "turn_cpu_limit")
        return (
            f"Run {self.run_id!r}: a turn of its workflow was stopped after {self.limit:g} s {what}"
            + (f", at {self.where}" if self.where else "")
            + ".  A workflow's body runs again at each turn and should only decide what comes next.  Move the work"
            f" into a step, or raise the setting {setting}; then deploy, or `durable runs retry` the run."
        )


class TurnLost(DurableError):
    """
    The reason of a blocked run: its turn ended its process, or hung, three times in a row.

    Attributes:
        run_id: The run.
        tries: For each try, how it ended, in which process, and when it began.
    """

    def __init__(self, run_id: str, tries: Sequence[str]) -> None:
        super().__init__(run_id, tries)
        self.run_id = run_id
        self.tries = tries

    def __str__(self) -> str:
        return (
            f"Run {self.run_id!r}: a turn of its workflow ended its process, or hung, {len(self.tries)} times in a row"
            f" ({'; '.join(self.tries)}).  The workflow's body may exit, crash in C code, use up the memory or wait"
            " for a lock: see the workers' logs of these times.  Move that code into a step and deploy.  If the"
            " workers were killed for another reason, `durable runs retry` the run."
        )


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
            f" {self.limit}.  A workflow that runs for ever should start its next run from a step and return."
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


class HookNotFound(DurableError):
    """Raised when no hook with this token is open."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token

    def __str__(self) -> str:
        return (
            f"No open hook has the token {self.token!r}.  Its run may have ended, or the hook may be closed or not"
            ' created yet: resume_hook(token, payload, wait="5s") waits until it is created.'
        )


class HookClosed(DurableError):
    """Raised when you await a closed hook that has no queued payload."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token

    def __str__(self) -> str:
        return (
            "This hook is closed (its `async for` or `with` was left, or close() was called) and has nothing"
            " queued.  Await it before it is closed, or create a new hook."
        )


class HookConflict(DurableError):
    """Raised when you await a hook whose token another run holds.  Attributes: ``token``, ``run_id``."""

    def __init__(self, token: str, run_id: str) -> None:
        super().__init__(token, run_id)
        self.token = token
        self.run_id = run_id

    def __str__(self) -> str:
        return (
            f"The token {self.token!r} is held by run {self.run_id!r}.  Wait until that run ends or closes its"
            " hook, resume that hook instead, or use another token."
        )


class HookPayloadError(DurableError):
    """Raised when a payload does not fit the type of its hook.  Nothing is recorded.  ``errors`` are pydantic's."""

    def __init__(self, token: str, errors: Sequence[Any]) -> None:
        super().__init__(token, errors)
        self.token = token
        self.errors = errors

    def __str__(self) -> str:
        lines = "; ".join(
            f"{'.'.join(map(str, error.get('loc', ()))) or 'payload'}: {error.get('msg')}" for error in self.errors
        )
        return f"The payload for hook {self.token!r} does not fit its type, and was not recorded: {lines}"


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


class DecryptionError(DurableError):
    """
    Raised when this process's keys (the setting ``cipher``) cannot read a stored value.

    It does not fail the run: a worker without the key leaves the run to a worker that has it.

    Attributes:
        key_id: The id of the key that the value was written with.
        known: The ids of the keys that this process has; empty without a cipher.
        run_id: The run that the value belongs to.
    """

    def __init__(self, key_id: str, known: Sequence[str], run_id: str) -> None:
        super().__init__(key_id, known, run_id)
        self.key_id = key_id
        self.known = tuple(known)
        self.run_id = run_id

    def __str__(self) -> str:
        if self.key_id in self.known:
            why = (
                "which does not open it here: the setting cipher (DURABLE_CIPHER) has another key under that id than"
                " the process that wrote it, or the value was changed or moved in the database"
            )
        else:
            has = f"has {', '.join(map(repr, self.known))}" if self.known else "has no cipher"
            why = f"and this process {has}: add that key to the setting cipher (DURABLE_CIPHER), after the first one"
        return f"A value of run {self.run_id!r} is encrypted with the key {self.key_id!r}, {why}."


class PayloadMissing(DurableError):
    """
    Raised when a large value is missing from the payload store, or is not the value that was stored.

    If a step's arguments need it, the step fails without retries.  If a workflow needs it, the run is blocked.

    Attributes: ``run_id``; ``digest``, its address in the store; ``reason``, what the store has there.
    """

    def __init__(self, run_id: str, digest: str, reason: str) -> None:
        super().__init__(run_id, digest, reason)
        self.run_id = run_id
        self.digest = digest
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"A large value of run {self.run_id!r} cannot be read from the payload store: {self.digest} {self.reason}."
            "  Compare DURABLE_PAYLOAD_URL with that of the process that wrote it, or restore the payload from a"
            " backup; then `durable runs retry` the run if it is blocked."
        )


class BodyNotLoaded(DurableError):
    """
    Raised when a workflow body reads a request's body that is larger than a turn loads.

    Attributes: ``request_id``; ``size``, the bytes of the body; ``limit``, the most that a turn loads.
    """

    def __init__(self, request_id: str | None, size: int, limit: int) -> None:
        super().__init__(request_id, size, limit)
        self.request_id = request_id
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"The body of request {self.request_id!r} has {self.size} bytes.  A workflow's body runs again at each"
            f" turn, which loads bodies of up to {self.limit} bytes: pass the request to a step, and read it there."
        )


class BadRequestBody(DurableError, ValueError):
    """Raised by ``Request.json()`` and similar methods when the body does not have that format."""


class FatalError(Exception):
    """Raise it in a step to fail the step without retries."""


class RetryableError(Exception):
    """
    Raise it in a step to have the step retried, not before *retry_after*.

    Attributes:
        retry_after: A duration or time as ``sleep`` takes it (``"10s"``, seconds, a timedelta, an aware
            datetime); None for the step's own backoff.
    """

    def __init__(self, message: str = "", retry_after: str | float | timedelta | datetime | None = None) -> None:
        super().__init__(message, retry_after)
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.message)  # an author may pass any object
