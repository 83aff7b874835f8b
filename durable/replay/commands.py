"""
What a replay can ask for.  ``drive`` commits commands as events and rows, and the dispatcher sends them.

Commands are data: a replay returns them and does nothing else.  They are in
the order in which the workflow issued them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class CreateStep:
    """Run the step *name* with the encoded arguments *args* (an object by parameter name)."""

    op_id: str
    name: str
    digest: str
    args: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CreateWait:
    """Wake the run at *due_at*, microseconds since 1970 UTC."""

    op_id: str
    digest: str
    due_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CreateHook:
    """
    Register *token* as this run's.

    Attributes:
        name: ``"hook"``, ``"webhook"``, or the name that ``define_hook`` gave.
        drawn: Whether the token is random, so that no other hook can hold it.
        config: A webhook's options as JSON text, which the blueprint reads; None for other hooks.
        metadata: An encoded value.
    """

    op_id: str
    name: str
    digest: str
    token: str
    drawn: bool
    config: str | None = None
    metadata: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CreateChild:
    """Start the workflow *name* as the run *run_id*, and record its outcome under *op_id* of this run."""

    op_id: str
    name: str
    digest: str
    args: str
    run_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CloseHook:
    """Close the hook *op_id*, and free its token."""

    op_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Withdraw:
    """Cancel a recorded operation whose outcome the workflow no longer wants."""

    op_id: str
    kind: Literal["step", "wait", "child"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordMarker:
    """Record that the run took the new way at ``patched(name)``."""

    op_id: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAttributes:
    """Change the run's attributes; None removes one."""

    op_id: str
    attributes: dict[str, str | None]


Command = CreateStep | CreateWait | CreateHook | CreateChild | CloseHook | Withdraw | RecordMarker | SetAttributes


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """
    How a run ended.

    Attributes:
        value: The encoded result, the encoded exception, or None.
        error: The exception of a failed run, in the process that has run its code.
    """

    status: Literal["completed", "failed", "cancelled"]
    value: str | None = None
    error: BaseException | None = field(default=None, compare=False, repr=False)
