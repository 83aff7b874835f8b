"""What comes of a turn's writing: what has to be sent, or that it was overtaken."""

from __future__ import annotations

from dataclasses import dataclass, field

from .store.steps import StepRow
from .store.waits import WaitRow


class Overtaken(Exception):
    """Raised when another turn, or a payload, was faster: nothing is written, think again."""


@dataclass(kw_only=True)
class Aftermath:
    """What to send once the transaction has committed."""

    steps: list[StepRow] = field(default_factory=list)
    waits: list[WaitRow] = field(default_factory=list)
    #: Other runs that have news now: children and parents.
    drives: list[str] = field(default_factory=list)
    #: Whom to tell of answers: (process, request id).
    hints: list[tuple[str, str]] = field(default_factory=list)
    #: The run, if it has ended.
    ended: str | None = None
