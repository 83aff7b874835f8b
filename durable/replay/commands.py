"""
What a replay can ask for.  ``drive`` commits commands as events and rows; ``dispatch`` sends them.

Commands are data: replay returns them and does nothing else.  They come in
the order in which the workflow issued them.
"""

from __future__ import annotations

from dataclasses import dataclass
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

    ``name`` is ``"hook"``, ``"webhook"`` or the name of a defined hook; ``config`` is JSON text that
    the blueprint reads (methods, how to respond, deadlines), None for a hook that is no webhook;
    ``metadata`` an encoded value; ``drawn`` is True for a random token, which cannot be taken.
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
    """Start the workflow *name* as a run of its own, and report its end to ``op_id``."""

    op_id: str
    name: str
    digest: str
    args: str
    run_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CloseHook:
    """Stop listening on the hook *op_id*; its token is free."""

    op_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Withdraw:
    """The workflow no longer wants the outcome of this recorded operation."""

    op_id: str
    kind: Literal["step", "wait", "child"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordMarker:
    """Record that the run went through ``patched(name)``."""

    op_id: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAttributes:
    """Change the run's attributes; None unsets one."""

    op_id: str
    attributes: dict[str, str | None]


Command = CreateStep | CreateWait | CreateHook | CreateChild | CloseHook | Withdraw | RecordMarker | SetAttributes


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a run ended: ``value`` is the encoded result, or the encoded exception, or None."""

    status: Literal["completed", "failed", "cancelled"]
    value: str | None = None
