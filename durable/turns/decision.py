"""What a turn decides, and what its commit leaves to send."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import DurableError
from ..events import Event
from ..http import Request
from ..replay import Command, Outcome
from ..store import Claim, DueWait, LimitKey, NewItem, Run, RunStatus, StepRow, WaitRow
from .limit_keys import KeyedLimits


class Overtaken(Exception):
    """Raised when another turn or a new inbox item came first: nothing is written, and the turn starts again."""


class NewEvents:
    """Events to add to a log.  Each gets the next ``seq``, and a time that is not before that of the event before."""

    def __init__(self, seq: int, at: int) -> None:
        """
        Args:
            seq: The ``seq`` of the log's last event.
            at: The time of the log's last event.
        """
        self.seq = seq
        self.at = at
        self.events: list[Event] = []

    def add(self, event: Event) -> Event:
        """Add *event*, and return it as it goes into the log."""
        self.seq += 1
        self.at = max(self.at, event.at)
        placed = replace(event, seq=self.seq, at=self.at)
        self.events.append(placed)
        return placed


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """
    What a turn writes.  ``decide`` makes it, and nothing changes it.

    Attributes:
        run: The run's row, as the turn read it.
        seq: The ``seq`` of the log's last event, with the events of this turn.
        at: The time of that event, or a later one.
        events: What the log gets, in order.
        drained: Ids of the inbox items that *events* contain.
        commands: What the workflow asks for.
        outcome: How the run ends with this turn; None: it goes on.
        reason: Why the run was cancelled.
        fault: Why the run is blocked.  Then nothing else is written.
        is_plain_end: Whether the run ends and has had only steps and waits: no hook, no child, no request.
        open_waits: At the end of the run, its waits that are not over.
        taken: Ids of the webhook requests that the workflow has taken.
        forwarded: Cancels that came to a run which has continued as new: they are for its last generation.
        refused: Ids of the webhook requests that came to a hook which the workflow has closed.
        requests: The webhook requests that the turn has loaded, by id.
        limits: The limits of the steps and child runs that the workflow asks for, each with its key, by operation.
        ends: The attempt or wait whose outcome is among *events* and was not in the inbox; the turn's commit ends it.
        is_unread: Whether the turn has read neither the run's row nor its inbox.
        releases: Who holds the lease of the run's turns, if the turn's commit releases it.
    """

    run: Run
    seq: int
    at: int
    events: Sequence[Event] = ()
    drained: Sequence[int] = ()
    commands: Sequence[Command] = ()
    outcome: Outcome | None = None
    reason: str | None = None
    fault: DurableError | None = None
    is_plain_end: bool = False
    open_waits: Sequence[str] = ()
    taken: Collection[str] = ()
    refused: Sequence[str] = ()
    forwarded: Sequence[Event] = ()
    requests: Mapping[str, Request] = field(default_factory=dict)
    limits: KeyedLimits = field(default_factory=dict)
    ends: Claim | DueWait | None = None
    is_unread: bool = False
    releases: str | None = None

    @classmethod
    def block(cls, run: Run, fault: DurableError) -> Decision:
        """Block the run, and write nothing else."""
        return cls(run=run, seq=run.seq, at=run.last_at, fault=fault)

    @property
    def is_cancelled(self) -> bool:
        """Whether the run ends with this turn, cancelled."""
        return self.outcome is not None and self.outcome.status == "cancelled"

    @property
    def is_continued(self) -> bool:
        """Whether the run ends with this turn, and its next generation begins."""
        return self.outcome is not None and self.outcome.status == "continued"

    @property
    def becomes(self) -> RunStatus | None:
        """The status that the run gets with this turn, if it ends, or if it is blocked and was not before."""
        if self.fault is not None:
            return None if self.run.status == RunStatus.BLOCKED else RunStatus.BLOCKED
        return None if self.outcome is None or self.run.ended else RunStatus(self.outcome.status)

    def unended(self, op_ids: Iterable[str]) -> list[str]:
        """Return those of the operations that *events* don't end: the workflow may have given some up itself."""
        ended = {event.op_id for event in self.events if event.phase == "ended"}
        return [op_id for op_id in op_ids if op_id not in ended]


@dataclass(kw_only=True)
class CommitResult:
    """What a commit leaves to do once its transaction has committed."""

    #: Steps and waits whose messages have to be sent.
    steps: list[StepRow] = field(default_factory=list)
    #: The limits of new steps that wait for room.
    limit_keys: set[LimitKey] = field(default_factory=set)
    #: The limits of new child runs that wait for room.
    run_limit_keys: set[LimitKey] = field(default_factory=set)
    #: The run's id, if it may have had limits and has ended: others may begin now.
    left: str | None = None
    #: The run's id, if calls of steps were given up, which may make room.
    withdrawn_from: str | None = None
    waits: list[WaitRow] = field(default_factory=list)
    #: Ids of other runs, children or the parent, whose inbox has a new item.
    to_drive: list[str] = field(default_factory=list)
    #: Answered webhook requests, each with the process that holds the sender's connection: (process, request id).
    answered: list[tuple[str, str]] = field(default_factory=list)
    #: Tokens that the workflow has chosen, of hooks that are open now: requests to receivers may wait for them.
    opened: list[str] = field(default_factory=list)
    #: The run's id, if callers may wait for what has happened: its end, or that it has taken a payload in.
    awaited: str | None = None
    #: What the workflow has emitted to streams, and of streams with dropped items how many were written.
    emitted: tuple[list[NewItem], dict[str, int]] = ([], {})
    #: What the commit has added to the log.
    log: list[Event] = field(default_factory=list)
    #: The run's row after the commit, of a run that goes on.
    run: Run | None = None
