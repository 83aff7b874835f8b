"""
What a replay can ask for.  ``drive`` commits commands as events and rows, and the dispatcher sends them.

Commands are data: a replay returns them and does nothing else.  They are in
the order in which the workflow issued them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..registry import StreamOptions


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
        is_handed_over: Whether the hook is open already: the generation before had it.
    """

    op_id: str
    name: str
    digest: str
    token: str
    drawn: bool
    config: str | None = None
    metadata: str | None = None
    is_handed_over: bool = False


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishValue:
    """Publish a value, which is encoded."""

    op_id: str
    name: str
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SendReply:
    """Answer the question *request_id* with a value, which is encoded."""

    op_id: str
    request_id: str
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EmitItem:
    """Add an item, which is encoded, to a stream; None closes the stream.  The log has no event of it."""

    op_id: str
    name: str
    item: str | None
    options: StreamOptions


#: The commands that are events of the log.
Recorded = (
    CreateStep
    | CreateWait
    | CreateHook
    | CreateChild
    | CloseHook
    | Withdraw
    | RecordMarker
    | SetAttributes
    | PublishValue
    | SendReply
)
Command = Recorded | EmitItem


@dataclass(frozen=True, slots=True)
class UnreadPayload:
    """A payload that a hook has received and the workflow has not taken; ``stamp`` orders those of all hooks."""

    stamp: int
    op_id: str
    payload: str | None
    request_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenHook:
    """A hook that is open when the run continues as new, and that its next generation finds by token or label."""

    op_id: str
    token: str
    label: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """
    How a run ended.

    Attributes:
        value: The encoded result, the encoded exception, the encoded arguments of the next generation, or None.
        error: The exception of a failed run, in the process that has run its code.
        digest: The digest of the next generation's arguments.
        hooks: What the next generation is handed over.
        unread: The payloads of these hooks that the workflow has not taken, in the order received.
    """

    status: Literal["completed", "failed", "cancelled", "continued"]
    value: str | None = None
    error: BaseException | None = field(default=None, compare=False, repr=False)
    digest: str = ""
    hooks: tuple[OpenHook, ...] = ()
    unread: tuple[UnreadPayload, ...] = ()
