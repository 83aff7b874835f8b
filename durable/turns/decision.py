"""What comes of a turn's writing: what has to be sent, or that it was overtaken."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import DurableError
from ..events import Event
from ..http import Request
from ..replay import Command, Outcome
from ..store import Claim, Run, StepRow, WaitRow


class Overtaken(Exception):
    """Raised when another turn, or a payload, was faster: nothing is written, think again."""


@dataclass(kw_only=True)
class CommitResult:
    """What to send once the transaction has committed."""

    steps: list[StepRow] = field(default_factory=list)
    waits: list[WaitRow] = field(default_factory=list)
    #: Other runs that have news now: children and parents.
    drives: list[str] = field(default_factory=list)
    #: Whom to tell of answers: (process, request id).
    hints: list[tuple[str, str]] = field(default_factory=list)
    #: The run, if it has ended.
    ended: str | None = None


class Placing:
    """Gives events their place in the log: dense ``seq``, and a time that never goes back."""

    def __init__(self, run: Run) -> None:
        self.seq = run.seq
        self.at = run.last_at

    def place(self, event: Event) -> Event:
        self.seq += 1
        self.at = max(self.at, event.at)
        return replace(event, seq=self.seq, at=self.at)


@dataclass(kw_only=True)
class Decision:
    """What a turn writes."""

    run: Run
    placing: Placing
    drained: Sequence[int] = ()
    events: list[Event] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    outcome: Outcome | None = None
    reason: str | None = None
    #: The attempt whose outcome is the turn's news, and which ends with it.
    ends: Claim | None = None
    #: The attempt that this process runs next, of a step that the turn asks for.
    continues: Claim | None = None
    #: Whether the run has had steps and nothing else: nobody comes to its door, and no child knows it.
    has_only_steps: bool = False
    #: Why the run is blocked.
    fault: DurableError | None = None
    #: What of the events came in, and the webhook requests that the turn has loaded for them.
    news: Sequence[Event] = ()
    requests: Mapping[str, Request] = field(default_factory=dict)
    #: Requests that the workflow took, and those that came to a hook it has closed.
    taken: Collection[str] = ()
    refused: list[str] = field(default_factory=list)
    #: The run's row once all this is committed, after it was asked for (``commit.advanced``).
    after: Run | None = None

    def add(self, event: Event) -> Event:
        self.after = None
        placed = self.placing.place(event)
        self.events.append(placed)
        return placed

    @property
    def is_cancelled(self) -> bool:
        """Whether the run ends with this turn, cancelled."""
        return self.outcome is not None and self.outcome.status == "cancelled"

    def unended(self, op_ids: Iterable[str]) -> list[str]:
        """Those operations that this turn does not end already: the workflow may have given them up itself."""
        ended = {event.op_id for event in self.events if event.phase == "ended"}
        return [op_id for op_id in op_ids if op_id not in ended]
