"""
What makes two operations the same one, and how they read in a diff.

An operation is compared by kind, name and digest: what the log recorded
against what a replay asks for.  Its place (the op id) is where they meet.
"""

from __future__ import annotations

from typing import NamedTuple

from . import commands, events

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
SHOWN = 300


class Identity(NamedTuple):
    """What is compared.  For a wait, ``digest`` holds its moment, so that this tells all there is."""

    kind: str
    name: str
    digest: str

    def is_of(self, item: Create | Created) -> bool:
        """The same as ``identity(item) == self``, and twice as fast: replay asks it of every operation."""
        return self.digest == item.digest and self.name == getattr(item, "name", "") and self.kind == _KINDS[type(item)]


def identity(item: Create | Created) -> Identity:
    """The part of a command, or of the event that records it, which a replay has to repeat."""
    return Identity(_KINDS[type(item)], getattr(item, "name", ""), item.digest)


def describe(item: Create | Created | Identity) -> str:
    """One line for a diff: the kind, the name, and the arguments, moment or token."""
    if isinstance(item, Identity):
        return f"{item.kind} {item.name} [{item.digest}]"
    kind, name, digest = identity(item)
    if isinstance(item, commands.CreateWait | events.WaitCreated):
        return f"wait {_moment(digest)}"
    if isinstance(item, commands.CreateHook | events.HookCreated | events.HookConflicted):
        return f"{name if name == 'webhook' else f'hook {name!r}'} [{digest}]"
    return f"{kind} {name} {_shortened(item.args)} [{digest[:8]}]"


def _moment(digest: str) -> str:
    name, _, micros = digest.partition(":")
    return f"({name}) until {int(micros) / 1e6:g} s after the start" if micros.isdigit() else f"[{digest}]"


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"
