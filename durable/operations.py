"""
What makes two operations the same one, how they read in a diff, and which line of the author's asked.

An operation is compared by kind, name and digest: what the log recorded
against what a replay asks for.  Its place (the op id) is where they meet.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, NamedTuple

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

_OURS = (__file__.rpartition("/")[0] + "/", asyncio.__file__.rpartition("/")[0] + "/", "<frozen ")


class Identity(NamedTuple):
    """What is compared.  For a wait, ``digest`` holds its moment, so that this tells all there is."""

    kind: str
    name: str
    digest: str


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


def calling_line() -> str | None:
    """``file:line`` of the author's innermost line in the stack of the caller."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_ours(frame.f_code):
        frame = frame.f_back
    return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def waiting_line(coro: Any) -> str | None:
    """``file:line`` where the suspended coroutine *coro* waits, in the author's own code."""
    lines = [f"{frame.f_code.co_filename}:{frame.f_lineno}" for frame in _frames(coro) if not _is_ours(frame.f_code)]
    return lines[-1] if lines else None


def _frames(awaited: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of what it awaits, outermost first."""
    while awaited is not None:
        frame = next((f for n in ("cr", "gi", "ag") if (f := getattr(awaited, f"{n}_frame", None))), None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(_OURS)
