"""
What the log records of a workflow's wishes, against what the workflow asks for.

Asking for an operation compares it with what the log recorded under its op id.
Without a record it becomes a command.  The first difference is the fault, and
it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .commands import Command, Withdraw
from .errors import DurableError, LogTooLong, NonDeterminismError
from .lines import calling_line
from .operations import Create, Created, Identity, describe


class Ledger:
    """
    Attributes:
        recorded: Events that create an operation which the workflow has not asked for yet, by op id.
        issued: What the workflow has asked for.
        commands: What the log lacks, in the order in which it was asked for.
        ended: Operations whose outcome is known, or no longer wanted.
        given_up: Operations that the log records as cancelled or closed.
        noted: Markers and changes of attributes that the log records.
        limit: How many operations the workflow may ask for; 0: any number.
        fault: How the workflow differs from its log, or that it asked for too much.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.recorded: dict[str, Created] = {}
        self.issued: dict[str, Identity] = {}
        self.commands: dict[str, Command] = {}
        self.ended: set[str] = set()
        self.given_up: set[str] = set()
        self.noted: set[str] = set()
        self.limit = 0
        self.fault: DurableError | None = None

    def ask(self, op_id: str, asked: Identity, build: Callable[[str], Create]) -> Create | Created | None:
        """
        Enter what the workflow asks for: the event that records it, or else the command, which *build* makes.

        None when the log has it otherwise, or it is too much.
        """
        if self._is_full():
            return None
        recorded = self.recorded.get(op_id)
        if recorded is not None and not asked.is_of(recorded):
            self.diverge(op_id, describe(recorded), describe(build(op_id)), calling_line())
            return None
        entered: Create | Created
        if recorded is None:
            entered = self.commands[op_id] = build(op_id)
        else:
            entered = self.recorded.pop(op_id)
        self.issued[op_id] = asked
        return entered

    def _is_full(self) -> bool:
        """No log could hold more: a loop that never awaits would fill the memory instead."""
        if not 0 < self.limit <= len(self.issued):
            return False
        self.fault = self.fault or LogTooLong(self.run_id, self.limit + 1, self.limit, calling_line())
        return True

    def withdraw(self, op_id: str) -> None:
        """The workflow no longer wants the outcome of an operation."""
        self.ended.add(op_id)
        if self.commands.pop(op_id, None) is not None or op_id in self.given_up:
            return
        kind: Any = self.issued[op_id].kind
        self.commands[_withdrawal(op_id)] = Withdraw(op_id=op_id, kind=kind)

    def end(self, op_id: str) -> None:
        """The log has the outcome of an operation, so there is nothing left to withdraw."""
        self.ended.add(op_id)
        self.commands.pop(_withdrawal(op_id), None)

    def diverge(self, op_id: str, recorded: str, asked: str, where: str | None) -> None:
        """Note that the workflow does not match its log.  The first time counts."""
        if self.fault is None:
            self.fault = NonDeterminismError(self.run_id, op_id, recorded, asked, where)


def _withdrawal(op_id: str) -> str:
    return f"{op_id}/withdraw"
