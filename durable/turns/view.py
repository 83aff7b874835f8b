"""TODO"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from .. import codec, events
from ..engine import Checkout
from ..errors import PayloadMissing
from ..events import Event
from ..http import Request
from ..store import InboxItem, Run, RunStatus, event_rows, in_doubt, requests, run_log, turns


@dataclass(frozen=True, slots=True)
class View:
    """
    What a turn reads.

    Attributes:
        past: The events of the log that the replay was not fed yet.
        ended: Operations among the news whose end the log has already, where no code runs.
        requests: The webhook requests that news and past refer to, without bodies larger than what a turn loads.
        fault: Why the run is blocked: what the workflow needs is not there.
    """

    run: Run
    news: Sequence[InboxItem]
    past: Sequence[Event] = ()
    ended: Collection[str] = ()
    requests: Mapping[str, Request] = field(default_factory=dict)
    fault: PayloadMissing | None = None

    @property
    def cancel(self) -> events.RunCancelRequested | None:
        """A cancel that is news."""
        return next((n.event for n in self.news if isinstance(n.event, events.RunCancelRequested)), None)

    @property
    def resent(self) -> bool:
        """Whether the sweep has sent this turn before."""
        return any(item.sends for item in self.news)

    @property
    def replays(self) -> bool:
        """Whether the workflow's code runs in this turn."""
        return not self.run.ended and not self.cancels_at_once

    @property
    def cancels_at_once(self) -> bool:
        """Whether the run is cancelled without its code: it has not begun, or is blocked."""
        return self.cancel is not None and self.run.status in (RunStatus.PENDING, RunStatus.BLOCKED)


def read(tx: Connection, run_id: str, now: int, checkout: Checkout | None = None) -> View | None:
    """What the turn needs; None when there is nothing to do, which costs one query."""
    run, news = turns.read(tx, run_id)
    if run is None or not news:
        return None
    view = View(run, news)
    if run.status == RunStatus.BLOCKED and view.cancel is None and in_doubt.has_any(tx, run_id):
        return None
    if run.not_before is not None and now < run.not_before and not run.seq and view.cancel is None:
        return None
    if not view.replays:
        return replace(view, ended=run_log.ended_operations(tx, run_id, {n.event.op_id for n in news}))
    try:
        past = event_rows.load_large_values(tx, run.id, _unfed(tx, run, checkout or Checkout(None)), arguments=False)
        whole = event_rows.load_large_values(tx, run.id, (n.event for n in news), arguments=False)
    except PayloadMissing as fault:
        return replace(view, fault=fault)
    known = requests.load(tx, _references([*past, *whole]), whole=False)
    told = [n if n.event is event else replace(n, event=event) for n, event in zip(news, whole, strict=True)]
    return replace(view, news=told, past=past, requests=known)


def _unfed(tx: Connection, run: Run, checkout: Checkout) -> list[Event]:
    """What of the log the kept replay lacks; all of it, when that replay is not of this log."""
    kept = checkout.kept
    if kept is not None and (kept.run.turn, kept.run.seq, kept.run.last_at) == (run.turn, run.seq, run.last_at):
        return []
    if kept is not None and kept.run.turn < run.turn and kept.run.seq <= run.seq:
        found = run_log.read(tx, run.id, after=kept.run.seq - 1, upto=run.seq)
        if found and event_rows.is_same(found[0], kept.last):
            return found[1:]
    checkout.drop()
    return run_log.read(tx, run.id, upto=run.seq) if run.seq else []


def _references(known: Sequence[Event]) -> set[str]:
    found: set[str] = set()
    for event in known:
        if isinstance(event, events.HookReceived) and event.request_id:
            found.add(event.request_id)
        value = getattr(event, event.value_field) if event.value_field else None
        if value is not None:
            found |= codec.request_ids(value)
    return found
