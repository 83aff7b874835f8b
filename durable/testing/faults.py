"""Faults: a crash at one boundary, or a message that is lost, repeated or late; and whether the fault happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

#: What can happen to a message.
MESSAGE_FAULTS = ("lost", "repeated", "late")


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One fault, or none.

    Attributes:
        hit, point: A crash at this hit of a failpoint, counted from 1, and the name of that failpoint.
        message, what: The number of a message, counted from 1, and what it asks for.
        kind: One of ``MESSAGE_FAULTS``, for a message.
    """

    hit: int = 0
    point: str = ""
    message: int = 0
    what: str = ""
    kind: str = ""

    def __str__(self) -> str:
        if self.hit:
            return f"a crash at hit {self.hit}, {self.point}"
        return f"message {self.message}, {self.what}, {self.kind}" if self.message else "no fault"


@dataclass(slots=True)
class Trace:
    """The failpoints that a workflow hit, and the messages that were sent, in order."""

    hits: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def faults(trace: Trace) -> list[Fault]:
    """All faults that can happen to a workflow with this trace."""
    crashes = [Fault(hit=number, point=point) for number, point in enumerate(trace.hits, 1)]
    messages = [
        Fault(message=number, what=what, kind=kind)
        for number, what in enumerate(trace.messages, 1)
        for kind in MESSAGE_FAULTS
    ]
    return crashes + messages


def why_missed(fault: Fault, trace: Trace, expected: Trace) -> str | None:
    """
    Why a fault did not happen where it was planned; None when it did.

    Up to the fault, the trace has to equal the one without a fault.
    """
    if fault.hit:
        return _first_difference("hit", trace.hits, expected.hits, fault.hit)
    return _first_difference("message", trace.messages, expected.messages, fault.message)


def _first_difference(kind: str, seen: Sequence[str], expected: Sequence[str], until: int) -> str | None:
    if seen[:until] == expected[:until]:
        return None
    number = next((i for i, pair in enumerate(zip(seen, expected, strict=False), 1) if pair[0] != pair[1]), 0)
    if not number or number > until:
        return f"there were {len(seen)} {kind}s before the end, and {len(expected)} without a fault"
    return f"{kind} {number} was {seen[number - 1]}, and without a fault {expected[number - 1]}"
