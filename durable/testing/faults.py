"""Faults, and what a play saw: where a process crashes, which message goes astray, and whether that really came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

#: What can become of a message that goes astray.
FATES = ("lost", "repeated", "late")


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a process crashes (*hit*, from 1 on), or which message (*what*, by its number) goes astray and how."""

    hit: int = 0
    point: str = ""
    message: int = 0
    what: str = ""
    fate: str = ""

    def __str__(self) -> str:
        if self.hit:
            return f"a crash at hit {self.hit}, {self.point}"
        return f"message {self.message}, {self.what}, {self.fate}" if self.message else "no fault"


@dataclass(slots=True)
class Seen:
    """The boundaries that a play has come by, and the messages that were sent in it."""

    hits: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def faults(seen: Seen) -> list[Fault]:
    """All that can happen to a play in which this was seen."""
    crashes = [Fault(hit=number, point=point) for number, point in enumerate(seen.hits, 1)]
    astray = [
        Fault(message=number, what=what, fate=fate) for number, what in enumerate(seen.messages, 1) for fate in FATES
    ]
    return crashes + astray


def missed(fault: Fault, seen: Seen, expected: Seen) -> str | None:
    """
    Why a fault did not come where it was meant to, None when it did.

    Until then a play has to go as the one without a fault did.
    """
    if fault.hit:
        return _parting("hit", seen.hits, expected.hits, fault.hit)
    return _parting("message", seen.messages, expected.messages, fault.message)


def _parting(kind: str, seen: Sequence[str], expected: Sequence[str], until: int) -> str | None:
    if seen[:until] == expected[:until]:
        return None
    number = next((i for i, pair in enumerate(zip(seen, expected, strict=False), 1) if pair[0] != pair[1]), 0)
    if not number or number > until:
        return f"there were {len(seen)} {kind}s before the end, and {len(expected)} without a fault"
    return f"{kind} {number} was {seen[number - 1]}, and without a fault {expected[number - 1]}"
