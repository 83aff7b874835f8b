"""
Every exception of durable.

::

    DurableError
    ├── ConfigurationError        a setting, a decorator or the wiring is wrong
    │   └── SchemaOutOfDate       the database has another schema than the code
    ├── SerializationError        a value cannot cross between processes
    ├── NonDeterministicCall      a workflow body calls what only a step may call
    ├── NonDeterminismError       a replay asks for something its log does not record
    ├── TurnTooLong               a turn burned more CPU time, or took more time, than it may
    ├── TurnLost                  a turn ended its process, or hung, three times in a row
    ├── RunNotFound               no run has this id
    ├── RunFailed                 the run whose result is wanted has failed
    ├── LogTooLong                a run has more events than the setting max_events allows
    ├── RunCancelled              the run whose result is wanted was cancelled
    ├── RunConflict               the key of an existing run, with other arguments
    ├── HookNotFound              nobody holds this token open
    ├── HookClosed                the hook awaited is closed and has nothing queued
    ├── HookConflict              the token belongs to another run
    ├── HookPayloadError          a payload does not fit the hook's type
    ├── StepFailed                a step failed with an error that cannot be rebuilt here
    │   └── StepTimeout           an attempt took longer than its step's timeout
    ├── AttemptLost               heartbeat of an attempt that was given up
    ├── NotInDoubt                what is to be resolved is not in doubt
    ├── DecryptionError           a value that this process's keys do not read
    ├── PayloadMissing            a large value that is not where it was stored, or not what was stored
    ├── BodyNotLoaded             a workflow body reads a request's large body, which only a step is given
    └── BadRequestBody            a request's body is not what it was read as (a ValueError)
    FatalError                    for authors: fail the step, never retry
    RetryableError                for authors: retry the step, not before a moment

All arguments go to ``Exception.__init__``, so that each survives a copy
through a prefork worker's pipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any


class DurableError(Exception):
    """Base of every error that durable itself raises."""


class ConfigurationError(DurableError):
    """Raised when a setting, a decorator or the wiring of an application is wrong."""


class SchemaOutOfDate(ConfigurationError):
    """
    Raised when the database's schema is not the one this code needs.

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
            f"The database has durable's schema {self.found or '(none)'}, this code needs {self.needed}."
            "  Run `durable migrate` (with --app, or DURABLE_DATABASE_URL set) and start again."
        )


class SerializationError(DurableError):
    """
    Raised when a value cannot be written to, or read from, the log.

    Attributes:
        path: Where in the value it stands, e.g. ``args.order.items[3].price``.
        reason: What is wrong with it there, and what to do.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class NonDeterministicCall(DurableError):
    """
    Raised when a workflow body calls something whose outcome a replay could not repeat.

    Attributes:
        call: What was called, e.g. ``time.sleep``.
        fix: What to do instead.
        where: The author's line, ``file:line``, where it is known.
    """

    def __init__(self, call: str, fix: str = "move it into a step", where: str | None = None) -> None:
        super().__init__(call, fix, where)
        self.call = call
        self.fix = fix
        self.where = where

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.call} was called in a workflow body{place}, where no replay could repeat it: {self.fix}."


class NonDeterminismError(DurableError):
    """
    Raised when a replay asks for something that its log does not record.

    Attributes:
        run_id: The run being replayed.
        op_id: The operation, by task path and ordinal (``r.1#3``).
        recorded: What the log holds at this point, "nothing" if it holds nothing.
        asked: What the workflow asked for instead, "nothing" if it asked for nothing.
        where: The author's line, ``file:line``, where it is known.
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


class TurnTooLong(DurableError):
    """
    Why a run is blocked: one turn burned more CPU time than ``turn_cpu_limit`` allows, or hung for ``turn_timeout``.

    Attributes:
        run_id: The run whose turn was stopped.
        limit: Seconds of CPU time; of time, if it *hung*.
        where: The author's line that was running, ``file:line``, where it is known.
        hung: Whether the turn waited for something, and did not burn CPU time.
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
            + ".  A workflow's body runs again at each turn and should only decide what comes next: move the work"
            f" into a step, or raise the setting {setting}; then deploy, or `durable runs retry` the run."
        )


class TurnLost(DurableError):
    """
    Why a run is blocked: its turn ended the process that it ran in, or hung, three times in a row.

    Attributes:
        run_id: The run.
        tries: What is known of each try: how it ended, in which process, and since when it ran.
    """

    def __init__(self, run_id: str, tries: Sequence[str]) -> None:
        super().__init__(run_id, tries)
        self.run_id = run_id
        self.tries = tries

    def __str__(self) -> str:
        return (
            f"Run {self.run_id!r}: a turn of its workflow ended its process, or hung, {len(self.tries)} times in a row"
            f" ({'; '.join(self.tries)}).  The workflow's body exits, crashes in C, uses up the memory or waits for a"
            " lock: the workers' logs of these times may say more.  Move what does it into a step and deploy; if the"
            " workers were killed for another reason, `durable runs retry` the run."
        )


class RunNotFound(DurableError):
    """Raised when no run has the id asked for.  Attribute: ``run_id``."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return (
            f"There is no run {self.run_id!r} in this database.  Its start may have been rolled back, its"
            " retention may be over, or the id is of another database: compare DURABLE_DATABASE_URL."
        )


class RunFailed(DurableError):
    """
    Raised by ``Run.result()``, or by awaiting a child run, when that run has failed.

    ``__cause__`` is the original exception where its class is known in this process.

    Attributes:
        run_id, error_type, message: Which run, and its error's class name and text.
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
    What a run fails with whose log would grow beyond the setting ``max_events``.

    Attributes:
        run_id: The run.
        wanted: How many events its log would have had.
        limit: How many it may have.
        where: The author's line that asked for the last one, ``file:line``, where it is known.
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
            f" {self.limit}.  A workflow that goes round for ever should start its next run from a step and return;"
            " one that fans out widely should do so through child runs; a loop that never awaits asks without end."
        )


class RunCancelled(DurableError):
    """
    Raised by ``Run.result()`` when the run was cancelled.

    ``__cause__`` is what its cleanup raised, if it did.  Attributes: ``run_id``, ``reason``.
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
            "  Use a key that is derived from what makes the run unique, or a new one."
        )


class HookNotFound(DurableError):
    """Raised when no hook with this token is open."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token

    def __str__(self) -> str:
        return (
            f"No open hook has the token {self.token!r}.  Its run may be over, the hook closed, or not created"
            ' yet: resume_hook(token, payload, wait="5s") waits for one that is about to be created.'
        )


class HookClosed(DurableError):
    """Raised when a closed hook with nothing queued is awaited."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token

    def __str__(self) -> str:
        return (
            "This hook is closed (its `async for` or `with` was left, or close() was called) and has nothing"
            " queued.  Await it before that, or create a new one."
        )


class HookConflict(DurableError):
    """Raised when a hook is awaited whose token another hook holds.  Attributes: ``token``, ``run_id``."""

    def __init__(self, token: str, run_id: str) -> None:
        super().__init__(token, run_id)
        self.token = token
        self.run_id = run_id

    def __str__(self) -> str:
        return (
            f"The token {self.token!r} is held by run {self.run_id!r}.  Wait until that run ends or closes its"
            " hook, resume its hook instead, or use another token."
        )


class HookPayloadError(DurableError):
    """Raised when a payload does not fit a typed hook; nothing was recorded.  ``errors`` are pydantic's."""

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
    Raised where a failed step is awaited and its exception cannot be rebuilt in this process.

    Attributes:
        error_type, message, traceback: The original's class name, text, and traceback as text.
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
    What an attempt fails with that takes longer than its step's ``timeout``.

    It is retried like any failure, and raised where the step is awaited when it was the last.  Attributes: those
    of StepFailed; ``error_type`` is "StepTimeout".
    """

    def __str__(self) -> str:
        return self.message


class AttemptLost(DurableError):
    """
    Raised by ``heartbeat`` in an attempt that was given up: nothing that it does is recorded, so end it.

    Attributes: ``step``, its name, and ``attempt``, its number.
    """

    def __init__(self, step: str, attempt: int) -> None:
        super().__init__(step, attempt)
        self.step = step
        self.attempt = attempt

    def __str__(self) -> str:
        return (
            f"Attempt {self.attempt} of {self.step} was given up: its time was over, or its process was taken for dead."
            "  Nothing that it does is recorded; another attempt may run already."
        )


class NotInDoubt(DurableError):
    """
    Raised by ``Run.resolve`` when it is not clear which step is meant, or none is in doubt.

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
    Raised where a stored value cannot be read with the keys of the setting ``cipher`` in this process.

    It says nothing against the run: a worker that comes upon it leaves the run to one that has the key.

    Attributes:
        key_id: The key that it was written with.
        known: The keys that this process has; empty without a cipher.
        run_id: Whose value it is.
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
    Raised where a large value is read that is not in the payload store, or is not what was put there.

    A step whose arguments it is fails with it, and is not retried; a run whose workflow needs it is blocked by it.

    Attributes: ``run_id``; ``digest``, its address in the store; ``reason``, what was found there.
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
    Raised when a workflow body reads the body of a request that is larger than what a turn loads.

    Attributes: ``request_id``; ``size``, that of the body in bytes; ``limit``, what a turn loads.
    """

    def __init__(self, request_id: str | None, size: int, limit: int) -> None:
        super().__init__(request_id, size, limit)
        self.request_id = request_id
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"The body of request {self.request_id!r} has {self.size} bytes.  A workflow's body is run again at each"
            f" turn and is given bodies of up to {self.limit} bytes: pass the request to a step, and read it there."
        )


class BadRequestBody(DurableError, ValueError):
    """Raised by ``Request.json()`` and others when the body is not what it is read as."""


class FatalError(Exception):
    """For authors: raised in a step, it fails the step at once, whatever its retries."""


class RetryableError(Exception):
    """
    For authors: raised in a step, it asks for the next attempt not before *retry_after*.

    Attributes:
        retry_after: What ``sleep`` takes (``"10s"``, seconds, a timedelta, an aware datetime), or
            None for the step's own backoff.
    """

    def __init__(self, message: str = "", retry_after: str | float | timedelta | datetime | None = None) -> None:
        super().__init__(message, retry_after)
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.message)  # authors pass anything
