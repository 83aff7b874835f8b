"""
One turn's thinking: what is in the store, replayed, comes to what has to be written.

Nothing is written here, and no transaction is open while the workflow's code
runs.  ``commit.py`` writes a decision in one transaction, under a fence; when
that fails, the decision and its replay are thrown away, else the replay is kept
for the next turn (``replays.py``), which then reads what is new and no more.

The order of a turn's events in the log: first what was in the inbox, in the
order in which it came; then hooks, whose fate the workflow may ask for
(``get_conflict``), each fed back at once; then what else the workflow asked
for, in its order; last the end of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from . import codec, commands, events, registry
from .commands import Command, Outcome
from .context import RunInfo
from .engine import Engine
from .errors import DurableError, LogTooLong, PayloadMissing, TurnTooLong
from .events import Event
from .http import Request
from .replay import Replay
from .replays import Loan, unclosable
from .store import doubts, hooks, log, requests, rows, turns
from .store.claims import Claim
from .store.log import News
from .store.runs import Run
from .watchdog import Watch


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
    news: Sequence[News]
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
        return self.cancel is not None and self.run.status in ("pending", "blocked")


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


def read(tx: Connection, run_id: str, now: int, loan: Loan | None = None) -> View | None:
    """What the turn needs; None when there is nothing to do, which costs one query."""
    run, news = turns.read(tx, run_id)
    if run is None or not news:
        return None
    view = View(run, news)
    if run.status == "blocked" and view.cancel is None and doubts.has_any(tx, run_id):
        return None
    if run.not_before is not None and now < run.not_before and not run.seq and view.cancel is None:
        return None
    if not view.replays:
        return replace(view, ended=log.ended(tx, run_id, {n.event.op_id for n in news}))
    try:
        past = rows.fetched(tx, run.id, _unfed(tx, run, loan or Loan(None)), arguments=False)
        whole = rows.fetched(tx, run.id, (n.event for n in news), arguments=False)
    except PayloadMissing as fault:
        return replace(view, fault=fault)
    known = requests.load(tx, _references([*past, *whole]), whole=False)
    told = [n if n.event is event else replace(n, event=event) for n, event in zip(news, whole, strict=True)]
    return replace(view, news=told, past=past, requests=known)


def _unfed(tx: Connection, run: Run, loan: Loan) -> list[Event]:
    """What of the log the kept replay lacks; all of it, when that replay is not of this log."""
    kept = loan.kept
    if kept is not None and (kept.run.turn, kept.run.seq, kept.run.last_at) == (run.turn, run.seq, run.last_at):
        return []
    if kept is not None and kept.run.turn < run.turn and kept.run.seq <= run.seq:
        found = log.read(tx, run.id, after=kept.run.seq - 1, upto=run.seq)
        if found and rows.is_same(found[0], kept.last):
            return found[1:]
    loan.drop()
    return log.read(tx, run.id, upto=run.seq) if run.seq else []


def _references(known: Sequence[Event]) -> set[str]:
    found: set[str] = set()
    for event in known:
        if isinstance(event, events.HookReceived) and event.request_id:
            found.add(event.request_id)
        value = getattr(event, event.value_field) if event.value_field else None
        if value is not None:
            found |= codec.request_ids(value)
    return found


def decide(
    engine: Engine, view: View, workflow: registry.Workflow[..., object] | None, loan: Loan | None = None
) -> Decision | None:
    """What to write; None when this process does not know the workflow and must leave it to one that does."""
    if view.run.ended:
        return _after_the_end(view)
    if view.cancels_at_once:
        return _cancel_at_once(engine, view)
    if view.fault is not None:
        return replace(_start(view), fault=view.fault)
    if workflow is None:
        return None
    decision = _replayed(engine, view, workflow, loan or Loan(None))
    too_long = _outgrown(decision, engine.settings.max_events)
    return decision if too_long is None else _cut_off(view, decision, too_long)


def _outgrown(decision: Decision, limit: int) -> LogTooLong | None:
    """Why the log may not have what the turn would write; a workflow that ends needs room for its end only."""
    if isinstance(decision.fault, LogTooLong):
        return decision.fault
    if decision.outcome is None and decision.fault is None and 0 < limit < decision.placing.seq:
        return LogTooLong(decision.run.id, decision.placing.seq, limit)
    return None


def _start(view: View) -> Decision:
    drained = [n.id for n in view.news]
    return Decision(run=view.run, placing=Placing(view.run), drained=drained, requests=view.requests)


def _news_only(view: View) -> Decision:
    """What came in, and nothing of what the workflow makes of it."""
    decision = _start(view)
    for event in _unended(view.news, view.ended):
        decision.add(event)
    return decision


def _cut_off(view: View, wanted: Decision, error: LogTooLong) -> Decision:
    """A log that grows without end would make each turn longer than the last: the run fails instead."""
    decision = _start(view)
    for event in wanted.news:
        decision.add(replace(event, seq=0))
    decision.outcome = Outcome(status="failed", value=codec.encode_error(error))
    decision.taken = wanted.taken
    decision.placing.at = wanted.placing.at
    return decision


def _after_the_end(view: View) -> Decision:
    """A step that ran on may still record its outcome; all else comes too late."""
    decision = _start(view)
    for event in _unended(view.news, view.ended):
        if isinstance(event, events.AttemptEnded):
            decision.add(event)
    return decision


def _cancel_at_once(engine: Engine, view: View) -> Decision:
    """A run that has not begun, or is blocked, has no code that could clean up."""
    decision = _news_only(view)
    decision.outcome = Outcome(status="cancelled")
    decision.reason = view.cancel.reason if view.cancel else None
    decision.placing.at = max(decision.placing.at, engine.now())
    return decision


def _unended(news: Sequence[News], ended: Collection[str]) -> list[Event]:
    """The news without outcomes of operations that have one: they lost a race, or were told twice."""
    kept: list[Event] = []
    now_ended: set[str] = set()
    for event in (item.event for item in news):
        if event.phase == "ended":
            if event.op_id in ended or event.op_id in now_ended:
                continue
            now_ended.add(event.op_id)
        kept.append(event)
    return kept


def _replayed(engine: Engine, view: View, workflow: registry.Workflow[..., object], loan: Loan) -> Decision:
    decision = _start(view)
    if loan.replay is None:
        loan.replay = _begun(engine, view, workflow)
    replay = loan.replay
    may_be_kept = False
    try:
        try:
            _think(engine, view, decision, replay)
            may_be_kept = engine.replays.keeps and replay.fault is None and replay.outcome is None
        finally:
            if not may_be_kept:
                engine.watchdog.watch(view.run.id).run(replay.park)
    except TurnTooLong as error:
        decision.fault = error
    decision.fault = decision.fault or unclosable(replay)
    return decision


def _begun(engine: Engine, view: View, workflow: registry.Workflow[..., object]) -> Replay:
    """A replay that was fed nothing."""
    created = view.past[0] if view.past else view.news[0].event
    assert isinstance(created, events.RunCreated), f"the log of {view.run.id} begins with {created.kind}"
    started = _started(engine, view, created)
    info = RunInfo(run_id=view.run.id, name=view.run.name, started_at=started.at, public_url=started.public_url)
    return Replay(workflow, info, created.args, view.requests, max_operations=engine.settings.max_events)


def _started(engine: Engine, view: View, created: events.RunCreated) -> events.RunStarted:
    """The run's start: as recorded, else now."""
    recorded = next((e for e in view.past if isinstance(e, events.RunStarted)), None)
    at = max(engine.now(), view.run.last_at, created.at)
    return recorded or events.RunStarted(at=at, public_url=engine.settings.public_url)


def _think(engine: Engine, view: View, decision: Decision, replay: Replay) -> None:
    """Replay what of the log it lacks, tell the workflow what is new, and take what it asks for."""
    watch = engine.watchdog.watch(view.run.id)
    if view.past:
        watch.run(replay.feed, view.past, view.requests, replaying=True)
    for event in _unended(view.news, replay.ended):
        decision.add(event)
        if isinstance(event, events.RunCreated):
            decision.add(events.RunStarted(at=replay.info.started_at, public_url=replay.info.public_url))
    decision.news = [event for event in decision.events if not isinstance(event, events.RunStarted)]
    watch.run(replay.feed, decision.events, view.requests)
    decision.placing.at = max(decision.placing.at, engine.now())
    _settle(decision, replay, watch, _owners(engine))
    _conclude(decision, replay)


def _owners(engine: Engine) -> Callable[[str], tuple[str, str] | None]:
    def look(token: str) -> tuple[str, str] | None:
        with engine.store.read() as tx:
            return hooks.owner(tx, token)

    return look


def _settle(decision: Decision, replay: Replay, watch: Watch, owner: Callable[[str], tuple[str, str] | None]) -> None:
    """Take what the workflow asks for, telling it of its hooks, until it asks for no more hooks."""
    closed: set[str] = set()
    held: dict[str, str] = {}
    while True:
        asked = replay.take()
        decision.commands += asked
        settled = []
        for command in asked:
            if isinstance(command, commands.CloseHook):
                closed.add(command.op_id)
            elif isinstance(command, commands.CreateHook):
                settled.append(decision.add(_settled(decision, command, held, closed, owner)))
        if not settled:
            return
        watch.run(replay.feed, settled)


def _settled(
    decision: Decision,
    command: commands.CreateHook,
    held: dict[str, str],
    closed: set[str],
    owner: Callable[[str], tuple[str, str] | None],
) -> Event:
    known: dict[str, Any] = {
        "at": decision.placing.at,
        "op_id": command.op_id,
        "name": command.name,
        "digest": command.digest,
    }
    other = None if command.drawn else _holder(decision.run.id, command.token, held, closed, owner)
    if other is not None:
        return events.HookConflicted(token=command.token, owner=other, **known)
    held[command.token] = command.op_id
    return events.HookCreated(token=command.token, **known)


def _holder(
    run_id: str,
    token: str,
    held: dict[str, str],
    closed: set[str],
    owner: Callable[[str], tuple[str, str] | None],
) -> str | None:
    """The run that holds a token, with what this very turn opens and closes taken into account."""
    if token in held and held[token] not in closed:
        return run_id
    found = owner(token)
    if found is None or (found[0] == run_id and found[1] in closed):
        return None
    return found[0]


def _conclude(decision: Decision, replay: Replay) -> None:
    decision.fault = replay.fault
    decision.outcome = replay.outcome
    decision.taken = replay.taken
    decision.has_only_steps = replay.outcome is not None and replay.has_only_steps
    for command in decision.commands:
        if not isinstance(command, commands.CreateHook):
            decision.add(_event(command, decision.placing.at))
    decision.reason = replay.cancel.reason if replay.cancel else None
    for op_id in _no_longer_listening(decision, replay):
        decision.refused += replay.queued(op_id)


def _no_longer_listening(decision: Decision, replay: Replay) -> list[str]:
    """Hooks that are closed, and for which something may have come."""
    touched = {c.op_id for c in decision.commands if isinstance(c, commands.CloseHook)}
    touched |= {e.op_id for e in decision.events if isinstance(e, events.HookReceived)}
    return sorted(touched - replay.open_hooks) if touched else []


def _event(command: Command, at: int) -> Event:
    """The event that records a command."""
    match command:
        case commands.CreateStep(op_id=op_id, name=name, digest=digest, args=args):
            return events.StepCreated(at=at, op_id=op_id, name=name, digest=digest, args=args)
        case commands.CreateWait(op_id=op_id, digest=digest, due_at=due_at):
            return events.WaitCreated(at=at, op_id=op_id, digest=digest, due_at=due_at)
        case commands.CreateChild(op_id=op_id, name=name, digest=digest, args=args, run_id=run_id):
            return events.ChildCreated(at=at, op_id=op_id, name=name, digest=digest, args=args, run_id=run_id)
        case commands.CloseHook(op_id=op_id):
            return events.HookClosed(at=at, op_id=op_id)
        case commands.Withdraw(op_id=op_id, kind="step"):
            return events.StepCancelled(at=at, op_id=op_id)
        case commands.Withdraw(op_id=op_id, kind="wait"):
            return events.WaitCancelled(at=at, op_id=op_id)
        case commands.Withdraw(op_id=op_id):
            return events.ChildCancelled(at=at, op_id=op_id)
        case commands.RecordMarker(op_id=op_id, name=name):
            return events.MarkerRecorded(at=at, op_id=op_id, name=name)
        case commands.SetAttributes(op_id=op_id, attributes=attributes):
            return events.AttributesSet(at=at, op_id=op_id, attributes=attributes)
        case commands.CreateHook():
            raise AssertionError("hooks are settled before other commands")
