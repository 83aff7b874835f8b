"""
Which operations a workflow has asked for, which of them its log records, and how a difference reads.

Every call of a step, sleep, hook or child is an operation.  Its op id is the path of the calling task and a number:
``r#3`` is the third operation of the main task ``r``, ``r.2#1`` the first of the second task that ``r`` made.  So op
ids do not depend on the order in which parallel tasks run.

Two operations are the same when their kind, name and digest are equal.  A replay compares what the log
recorded under an op id with what the workflow asks for under that op id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .. import codec, events
from ..errors import DurableError, LogTooLong, NonDeterminismError
from ..sandbox import calling_line
from . import commands
from .commands import Command, Withdraw

#: Commands that create an operation, and the events that record it.
Create = commands.CreateStep | commands.CreateWait | commands.CreateHook | commands.CreateChild
Created = events.StepCreated | events.WaitCreated | events.HookCreated | events.HookConflicted | events.ChildCreated
#: The members of ``Created``, which ``isinstance`` checks faster than a union.
CREATED = (events.StepCreated, events.WaitCreated, events.HookCreated, events.HookConflicted, events.ChildCreated)

_KINDS: dict[type, str] = {
    commands.CreateStep: "step",
    events.StepCreated: "step",
    commands.CreateWait: "wait",
    events.WaitCreated: "wait",
    commands.CreateHook: "hook",
    events.HookCreated: "hook",
    events.HookConflicted: "hook",
    commands.CreateChild: "child",
    events.ChildCreated: "child",
}


class OperationSpec(NamedTuple):
    """The part of an operation that a replay has to repeat.  The digest of a wait is its name and its due time."""

    kind: str
    name: str
    digest: str

    def matches(self, item: Create | Created) -> bool:
        """Equal to ``spec_of(item) == self`` and twice as fast, since a replay compares every operation."""
        return self.digest == item.digest and self.name == getattr(item, "name", "") and self.kind == _KINDS[type(item)]


def spec_of(item: Create | Created) -> OperationSpec:
    """The spec of a command, or of the event that records it."""
    return OperationSpec(_KINDS[type(item)], getattr(item, "name", ""), item.digest)


def describe(item: Create | Created | OperationSpec) -> str:
    """One line for a diff: the kind, the name, and the arguments, due time or token."""
    if isinstance(item, OperationSpec):
        return f"{item.kind} {item.name} [{item.digest}]"
    kind, name, digest = spec_of(item)
    if isinstance(item, commands.CreateWait | events.WaitCreated):
        wait_name, _, micros = digest.partition(":")
        is_moment = micros.isdigit()
        return f"wait ({wait_name}) until {int(micros) / 1e6:g} s after the start" if is_moment else f"wait [{digest}]"
    if isinstance(item, commands.CreateHook | events.HookCreated | events.HookConflicted):
        return f"{name if name == 'webhook' else f'hook {name!r}'} [{digest}]"
    return f"{kind} {name} {codec.shown_in_error(item.args)} [{digest[:8]}]"


class Operations:
    """
    The operations of one run.

    Attributes:
        recorded: Events that create an operation which the workflow has not asked for yet, by op id.
        issued: What the workflow has asked for, by op id.
        commands: What the workflow has asked for and the log lacks, in that order.
        ended: Operations that have an outcome, or whose outcome the workflow no longer wants.
        given_up: Operations that the log records as cancelled or closed.
        markers: Markers and changes of attributes that the log records.
        limit: How many operations the workflow may ask for; 0 means any number.
        fault: How the workflow differs from its log, that it asked for too many operations, or its mistake.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.recorded: dict[str, Created] = {}
        self.issued: dict[str, OperationSpec] = {}
        self.commands: dict[str, Command] = {}
        self.ended: set[str] = set()
        self.given_up: set[str] = set()
        self.markers: set[str] = set()
        self.limit = 0
        self.fault: DurableError | None = None

    def issue(self, op_id: str, asked: OperationSpec, build: Callable[[str], Create]) -> Create | Created | None:
        """
        Add an operation that the workflow asks for.

        Args:
            build: Makes the command from the op id.  Called only when the log does not record the operation.

        Returns:
            The event that records the operation, or else the new command.  None after a fault: the log
            records another operation here, or the workflow has asked for too many.
        """
        if 0 < self.limit <= len(self.issued):
            # No log can hold more.  Without this check, a loop that never awaits would fill the memory.
            self.fault = self.fault or LogTooLong(self.run_id, self.limit + 1, self.limit, calling_line())
            return None
        recorded = self.recorded.get(op_id)
        if recorded is not None and not asked.matches(recorded):
            self.diverge(op_id, describe(recorded), describe(build(op_id)), calling_line())
            return None
        issued: Create | Created
        if recorded is None:
            issued = self.commands[op_id] = build(op_id)
        else:
            issued = self.recorded.pop(op_id)
        self.issued[op_id] = asked
        return issued

    def withdraw(self, op_id: str) -> None:
        """Note that the workflow no longer wants the outcome of an operation."""
        self.ended.add(op_id)
        if self.commands.pop(op_id, None) is not None or op_id in self.given_up:
            return
        kind: Any = self.issued[op_id].kind
        self.commands[_withdrawal_key(op_id)] = Withdraw(op_id=op_id, kind=kind)

    def end(self, op_id: str) -> None:
        """Note that the log has the outcome of an operation.  There is nothing left to withdraw."""
        self.ended.add(op_id)
        self.commands.pop(_withdrawal_key(op_id), None)

    def diverge(self, op_id: str, recorded: str, asked: str, where: str | None) -> None:
        """Note that the workflow does not match its log.  Only the first difference is kept."""
        if self.fault is None:
            self.fault = NonDeterminismError(self.run_id, op_id, recorded, asked, where)


def _withdrawal_key(op_id: str) -> str:
    return f"{op_id}/withdraw"
