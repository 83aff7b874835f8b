"""
One turn's thinking: what is in the store, replayed, comes to what has to be written.

Nothing is written here, and no transaction is open while the workflow's code
runs.  ``commit.py`` writes a decision in one transaction, under a fence; when
that fails, the decision and its replay are thrown away.

The order of a turn's events in the log: first what was in the inbox, in the
order in which it came; then hooks, whose fate the workflow may ask for
(``get_conflict``), each fed back at once; then what else the workflow asked
for, in its order; last the end of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from . import codec, commands, events, registry
from .commands import Command, Outcome
from .context import RunInfo
from .engine import Engine
from .errors import NonDeterminismError
from .events import Event
from .http import Request
from .replay import Replay
from .store import hooks, log, requests, runs
from .store.log import News
from .store.runs import Run


@dataclass(frozen=True, slots=True)
class View:
    """What a turn reads: the run, its news, its log, and the webhook requests that these refer to."""

    run: Run
    news: Sequence[News]
    past: Sequence[Event]
    requests: Mapping[str, Request]

    @property
    def created(self) -> events.RunCreated:
        first = self.past[0] if self.past else self.news[0].event
        assert isinstance(first, events.RunCreated), f"the log of {self.run.id} begins with {first.kind}"
        return first

    @property
    def cancel(self) -> events.RunCancelRequested | None:
        """A cancel that is news."""
        return next((n.event for n in self.news if isinstance(n.event, events.RunCancelRequested)), None)


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
    #: Why the run is blocked.
    fault: NonDeterminismError | None = None
    #: Requests that the workflow took, and those that came to a hook it has closed.
    taken: frozenset[str] = frozenset()
    refused: list[str] = field(default_factory=list)

    def add(self, event: Event) -> Event:
        placed = self.placing.place(event)
        self.events.append(placed)
        return placed


def read(tx: Connection, run_id: str, now: int) -> View | None:
    """What the turn needs; None when there is nothing to do, which costs one query."""
    run, news = runs.read_turn(tx, run_id)
    if run is None or not news:
        return None
    fresh = log.drain(tx, run_id)
    if not fresh:
        # Another turn has taken the news since the run was read: each query sees what is committed by then.
        return None
    if not run.seq and not isinstance(fresh[0].event, events.RunCreated):
        return read(tx, run_id, now)
    past = log.read(tx, run_id, upto=run.seq) if run.seq else []
    view = View(run, fresh, past, {})
    if run.not_before is not None and now < run.not_before and not past and view.cancel is None:
        return None
    return replace(view, requests=requests.load(tx, _references([*past, *(n.event for n in fresh)])))


def _references(known: Sequence[Event]) -> set[str]:
    found: set[str] = set()
    for event in known:
        if isinstance(event, events.HookReceived) and event.request_id:
            found.add(event.request_id)
        value = getattr(event, event.value_field) if event.value_field else None
        if value is not None:
            found |= codec.request_ids(value)
    return found


def decide(engine: Engine, view: View, workflow: registry.Workflow[..., object] | None) -> Decision | None:
    """What to write; None when this process does not know the workflow and must leave it to one that does."""
    if view.run.ended:
        return _after_the_end(view)
    if view.cancel is not None and view.run.status in ("pending", "blocked"):
        return _cancel_at_once(engine, view)
    if workflow is None:
        return None
    return _replayed(engine, view, workflow)


def _start(view: View) -> Decision:
    return Decision(run=view.run, placing=Placing(view.run), drained=[n.id for n in view.news])


def _after_the_end(view: View) -> Decision:
    """A step that ran on may still record its outcome; all else comes too late."""
    decision = _start(view)
    ended = {event.op_id for event in view.past if event.phase == "ended"}
    for event in _unended(view.news, ended):
        if isinstance(event, events.AttemptEnded):
            decision.add(event)
    return decision


def _cancel_at_once(engine: Engine, view: View) -> Decision:
    """A run that has not begun, or is blocked, has no code that could clean up."""
    decision = _start(view)
    ended = {event.op_id for event in view.past if event.phase == "ended"}
    for event in _unended(view.news, ended):
        decision.add(event)
    decision.outcome = Outcome(status="cancelled")
    decision.reason = view.cancel.reason if view.cancel else None
    decision.placing.at = max(decision.placing.at, engine.now())
    return decision


def _unended(news: Sequence[News], ended: set[str]) -> list[Event]:
    """The news without outcomes of operations that have one: they lost a race, or were told twice."""
    kept = []
    for item in news:
        if item.event.phase == "ended":
            if item.event.op_id in ended:
                continue
            ended.add(item.event.op_id)
        kept.append(item.event)
    return kept


def _replayed(engine: Engine, view: View, workflow: registry.Workflow[..., object]) -> Decision:
    decision = _start(view)
    now = engine.now()
    started = _started(engine, view, now)
    info = RunInfo(run_id=view.run.id, name=view.run.name, started_at=started.at, public_url=started.public_url)
    replay = Replay(workflow, info, view.created.args, view.requests)
    try:
        replay.feed(view.past, view.requests, replaying=True)
        for event in _unended(view.news, set(replay.ended)):
            decision.add(event)
            if isinstance(event, events.RunCreated):
                decision.add(started)
        replay.feed(decision.events, view.requests)
        decision.placing.at = max(decision.placing.at, now)
        _settle(decision, replay, _owners(engine))
        _conclude(decision, replay, view)
    finally:
        replay.park()
    _refuse_unclosable(decision, replay)
    return decision


def _started(engine: Engine, view: View, now: int) -> events.RunStarted:
    """The run's start: as recorded, else now."""
    recorded = next((e for e in view.past if isinstance(e, events.RunStarted)), None)
    at = max(now, view.run.last_at, view.created.at)
    return recorded or events.RunStarted(at=at, public_url=engine.settings.public_url)


def _refuse_unclosable(decision: Decision, replay: Replay) -> None:
    """A body that swallows its own end would hang the worker's exit: its run is blocked."""
    if replay.unclosable is not None and decision.fault is None:
        decision.fault = NonDeterminismError(
            decision.run.id,
            events.ROOT,
            "a workflow that can be put away while it waits",
            f"one that catches GeneratorExit and waits again ({replay.unclosable}): write `except Exception`",
        )


def _owners(engine: Engine) -> Callable[[str], tuple[str, str] | None]:
    def look(token: str) -> tuple[str, str] | None:
        with engine.store.read() as tx:
            return hooks.owner(tx, token)

    return look


def _settle(decision: Decision, replay: Replay, owner: Callable[[str], tuple[str, str] | None]) -> None:
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
        replay.feed(settled)


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


def _conclude(decision: Decision, replay: Replay, view: View) -> None:
    decision.fault = replay.fault
    decision.outcome = replay.outcome
    decision.taken = frozenset(replay.taken)
    for command in decision.commands:
        if not isinstance(command, commands.CreateHook):
            decision.add(_event(command, decision.placing.at))
    cancels = [e for e in (*view.past, *decision.events) if isinstance(e, events.RunCancelRequested)]
    decision.reason = cancels[0].reason if cancels else None
    for op_id in _no_longer_listening(decision, replay):
        decision.refused += replay.queued(op_id)


def _no_longer_listening(decision: Decision, replay: Replay) -> list[str]:
    """Hooks that are closed, and for which something may have come."""
    touched = {c.op_id for c in decision.commands if isinstance(c, commands.CloseHook)}
    touched |= {e.op_id for e in decision.events if isinstance(e, events.HookReceived)}
    return sorted(touched - replay.open_hooks)


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
