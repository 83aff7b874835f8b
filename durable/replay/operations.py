"""
What makes two operations the same one, and how they read in a diff.

An operation is compared by kind, name and digest: what the log recorded
against what a replay asks for.  Its place (the op id) is where they meet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .. import events
from ..errors import DurableError, LogTooLong, NonDeterminismError
from ..sandbox import calling_line
from . import commands
from .commands import Command, Withdraw

#: Commands that create an operation, and the events that record it.
Create = commands.CreateStep | commands.CreateWait | commands.CreateHook | commands.CreateChild
Created = events.StepCreated | events.WaitCreated | events.HookCreated | events.HookConflicted | events.ChildCreated

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

#: How much of an operation's arguments a diff shows, in characters.
MAX_ARGS_SHOWN = 300


class OperationSpec(NamedTuple):
    """What is compared.  For a wait, ``digest`` holds its moment, so that this tells all there is."""

    kind: str
    name: str
    digest: str

    def matches(self, item: Create | Created) -> bool:
        """The same as ``spec_of(item) == self``, and twice as fast: replay asks it of every operation."""
        return self.digest == item.digest and self.name == getattr(item, "name", "") and self.kind == _KINDS[type(item)]


def spec_of(item: Create | Created) -> OperationSpec:
    """The part of a command, or of the event that records it, which a replay has to repeat."""
    return OperationSpec(_KINDS[type(item)], getattr(item, "name", ""), item.digest)


def describe(item: Create | Created | OperationSpec) -> str:
    """One line for a diff: the kind, the name, and the arguments, moment or token."""
    if isinstance(item, OperationSpec):
        return f"{item.kind} {item.name} [{item.digest}]"
    kind, name, digest = spec_of(item)
    if isinstance(item, commands.CreateWait | events.WaitCreated):
        return f"wait {_moment(digest)}"
    if isinstance(item, commands.CreateHook | events.HookCreated | events.HookConflicted):
        return f"{name if name == 'webhook' else f'hook {name!r}'} [{digest}]"
    return f"{kind} {name} {_shortened(item.args)} [{digest[:8]}]"


def _moment(digest: str) -> str:
    name, _, micros = digest.partition(":")
    return f"({name}) until {int(micros) / 1e6:g} s after the start" if micros.isdigit() else f"[{digest}]"


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_ARGS_SHOWN else f"{text[:MAX_ARGS_SHOWN]}… ({len(text)} characters)"


class Operations:
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
        self.issued: dict[str, OperationSpec] = {}
        self.commands: dict[str, Command] = {}
        self.ended: set[str] = set()
        self.given_up: set[str] = set()
        self.markers: set[str] = set()
        self.limit = 0
        self.fault: DurableError | None = None

    def issue(self, op_id: str, asked: OperationSpec, build: Callable[[str], Create]) -> Create | Created | None:
        """
        Enter what the workflow asks for: the event that records it, or else the command, which *build* makes.

        None when the log has it otherwise, or it is too much.
        """
        if self._is_full():
            return None
        recorded = self.recorded.get(op_id)
        if recorded is not None and not asked.matches(recorded):
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
