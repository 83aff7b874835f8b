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

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from .. import codec, events, registry
from ..engine import Checkout, Engine, TurnWatch, unclosable
from ..errors import LogTooLong, TurnTooLong
from ..events import Event
from ..replay import Command, Outcome, Replay, RunInfo, commands
from ..store import InboxItem, hooks
from .decision import Decision, Placing
from .view import View


def decide(
    engine: Engine, view: View, workflow: registry.Workflow[..., object] | None, checkout: Checkout | None = None
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
    decision = _replayed(engine, view, workflow, checkout or Checkout(None))
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


def _inbox_only(view: View) -> Decision:
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
    decision = _inbox_only(view)
    decision.outcome = Outcome(status="cancelled")
    decision.reason = view.cancel.reason if view.cancel else None
    decision.placing.at = max(decision.placing.at, engine.now())
    return decision


def _unended(news: Sequence[InboxItem], ended: Collection[str]) -> list[Event]:
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


def _replayed(engine: Engine, view: View, workflow: registry.Workflow[..., object], checkout: Checkout) -> Decision:
    decision = _start(view)
    if checkout.replay is None:
        checkout.replay = _begun(engine, view, workflow)
    replay = checkout.replay
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


def _settle(
    decision: Decision, replay: Replay, watch: TurnWatch, owner: Callable[[str], tuple[str, str] | None]
) -> None:
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
            return events.HookClosedEvent(at=at, op_id=op_id)
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
