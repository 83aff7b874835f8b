"""What a turn reads: the run's row, its inbox, and the part of its log that the kept replay does not know."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from .. import codec, events
from ..engine import Checkout
from ..errors import DurableError, PayloadMissing
from ..events import Event
from ..http import Request
from ..store import Claim, DueWait, InboxItem, Run, RunStatus, event_rows, in_doubt, requests, run_log, turns

#: The id of an inbox item that has no row in the database.
NO_ROW = 0


@dataclass(frozen=True, slots=True)
class View:
    """
    What a turn reads.

    Attributes:
        run: The run's row.
        inbox: The items of the run's inbox, oldest first.
        past: The events of the log that the replay has not been fed yet.
        ended: Operations of the inbox items that have ended in the log already.  Only for a turn that replays nothing.
        requests: The webhook requests that inbox and past refer to, without large bodies.
        fault: Why the run is blocked: a value that the workflow needs is missing, or the key of a limit is none.
        ends: The attempt or wait that this turn ends.  Its outcome is the last inbox item, and has no row.
        is_unread: Whether nothing was read: the run is as the kept replay knows it, and its inbox is taken to be empty.
    """

    run: Run
    inbox: Sequence[InboxItem]
    past: Sequence[Event] = ()
    ended: Collection[str] = ()
    requests: Mapping[str, Request] = field(default_factory=dict)
    fault: DurableError | None = None
    ends: Claim | DueWait | None = None
    is_unread: bool = False

    @classmethod
    def unread(cls, run: Run, ended: Event, ends: Claim | DueWait) -> View:
        """Return the view of a turn that reads nothing, and whose only news is that it *ends* something."""
        return cls(run, [InboxItem(NO_ROW, ended)], ends=ends, is_unread=True)

    @property
    def drained(self) -> list[int]:
        """The ids of the inbox rows that the turn deletes."""
        return [item.id for item in self.inbox if item.id != NO_ROW]

    @property
    def cancel(self) -> events.RunCancelRequested | None:
        """The cancel request in the inbox, if there is one."""
        return next((item.event for item in self.inbox if isinstance(item.event, events.RunCancelRequested)), None)

    @property
    def is_first(self) -> bool:
        """Whether the run begins with this turn: a new run has no log, and a fork has had no turn."""
        return (not self.run.seq or not self.run.turn) and self.replays

    @property
    def was_resent(self) -> bool:
        """Whether the sweep has sent this turn before."""
        return any(item.sends for item in self.inbox)

    @property
    def is_paused(self) -> bool:
        """Whether the run has no turns now.  A cancel ends the pause of a run, and is not held up by one."""
        return self.run.paused_at is not None and not self.run.ended and self.cancel is None

    @property
    def replays(self) -> bool:
        """Whether the workflow's code runs in this turn."""
        return not self.run.ended and not self.cancels_at_once

    @property
    def cancels_at_once(self) -> bool:
        """Whether the run is cancelled without its code: it has not started, or is blocked."""
        return self.cancel is not None and self.run.status in ("pending", "blocked")


def read(
    tx: Connection, run_id: str, now: int, checkout: Checkout | None = None, *, holder: str | None = None
) -> View | None:
    """
    Read what the turn needs.  Return None when there is nothing to do, which takes one query.

    Args:
        holder: The id under which the caller has the lease of the run's turns.  While another has it, there is nothing
            to do.
    """
    run, inbox = turns.read(tx, run_id, now, holder)
    if run is None or not inbox:
        return None
    view = View(run, inbox)
    if view.is_paused:
        return view
    if run.status == RunStatus.BLOCKED and view.cancel is None and in_doubt.has_any(tx, run_id):
        return None
    if run.not_before is not None and now < run.not_before and not run.seq and view.cancel is None:
        return None
    return complete(tx, view, checkout or Checkout(None))


def complete(tx: Connection, view: View, checkout: Checkout) -> View:
    """Read what a turn needs besides the run's row and its inbox."""
    run, inbox = view.run, view.inbox
    if not view.replays:
        return replace(view, ended=run_log.ended_operations(tx, run.id, {item.event.op_id for item in inbox}))
    try:
        past = event_rows.load_large_values(tx, run.id, _unfed(tx, run, checkout), arguments=False)
        whole = event_rows.load_large_values(tx, run.id, (item.event for item in inbox), arguments=False)
    except PayloadMissing as fault:
        return replace(view, fault=fault)
    request_ids: set[str] = set()
    for event in (*past, *whole):
        if isinstance(event, events.HookReceived) and event.request_id:
            request_ids.add(event.request_id)
        value = getattr(event, event.value_field) if event.value_field else None
        if value is not None:
            request_ids |= codec.request_ids(value)
    loaded = requests.load(tx, request_ids, whole=False)
    inbox = [
        item if item.event is event else replace(item, event=event) for item, event in zip(inbox, whole, strict=True)
    ]
    return replace(view, inbox=inbox, past=past, requests=loaded)


def _unfed(tx: Connection, run: Run, checkout: Checkout) -> list[Event]:
    """Read the events that the kept replay lacks; all of the log, if that replay is not of this log."""
    kept = checkout.kept
    if kept is not None and (kept.run.turn, kept.run.seq, kept.run.last_at) == (run.turn, run.seq, run.last_at):
        return []
    if kept is not None and kept.run.turn < run.turn and kept.run.seq <= run.seq:
        found = run_log.read(tx, run.id, after=kept.run.seq - 1, upto=run.seq)
        if found and event_rows.is_same(found[0], kept.last):
            return found[1:]
    checkout.drop()
    return run_log.read(tx, run.id, upto=run.seq) if run.seq else []
