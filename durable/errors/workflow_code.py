"""Errors of a workflow's body: calls that it must not make, replays that differ, turns that do not end."""

from __future__ import annotations

from collections.abc import Sequence

from .base import DurableError


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


class TurnRefused(DurableError):
    """
    The reason of a blocked run: the database refused to store its turn, three times in a row, and not for an outage.

    Attributes:
        run_id: The run.
        error: The database's own error, in one line.
    """

    def __init__(self, run_id: str, error: str) -> None:
        super().__init__(run_id, error)
        self.run_id = run_id
        self.error = error

    def __str__(self) -> str:
        return (
            f"Run {self.run_id!r}: the database refused to store what its turn has decided: {self.error}.  A value may"
            " be too large, or of a kind that the database cannot hold, or someone has changed the tables.  Correct it,"
            " or deploy code that asks for something else; then `durable runs retry` the run."
        )
