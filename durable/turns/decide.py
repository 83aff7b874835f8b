"""
Decides what a turn writes: replays the workflow with what the turn has read, and collects what it asks for.

Nothing is written here, and no transaction is open while the workflow's code runs.  ``commit.py`` writes the decision
in one transaction, under a fence.  When that fails, the decision and its replay are thrown away.  Otherwise the process
keeps the replay for the next turn (``engine/replay_cache.py``), which then reads only what is new.

The events of a turn have this order in the log:

1. what was in the inbox, oldest first;
2. new hooks: the workflow may ask for their result (``get_conflict``), so each is fed back at once;
3. what else the workflow asked for, in its order;
4. the end of the run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from .. import codec, events, registry
from ..engine import Checkout, Engine, TurnWatch, Watchdog, unclosable
from ..errors import DurableError, LogTooLong, TurnTooLong, WorkflowCodeError
from ..events import Event
from ..replay import CONTINUE_AT, Command, Outcome, Replay, RunInfo, commands
from ..store import InboxItem, RunStatus, hooks
from .decision import Decision, NewEvents
from .limit_keys import KeyedLimits, find_keys, limited
from .view import View


def decide(
    engine: Engine,
    view: View,
    workflow: registry.Workflow[..., object] | None,
    checkout: Checkout | None = None,
    watchdog: Watchdog | None = None,
) -> Decision | None:
    """
    Decide what the turn writes.

    Return None when this process does not know the workflow: a worker that does has to take the turn.

    Args:
        watchdog: Stops the workflow's code; None: the engine's.
    """
    if view.run.ended:
        # A step that ran on may still record its outcome.  All else comes too late.
        late = _unended(view.inbox, view.ended)
        decision = _inbox_only(view, [event for event in late if isinstance(event, events.AttemptEnded)])
        if view.run.status == RunStatus.CONTINUED and view.cancel is not None:
            return replace(decision, forwarded=[view.cancel])
        return decision
    if view.cancels_at_once:
        # The run has not started, or is blocked: no code of it could clean up.
        decision = _inbox_only(view, _unended(view.inbox, view.ended))
        reason = view.cancel.reason if view.cancel else None
        at = max(decision.at, engine.now())
        return replace(decision, outcome=Outcome(status="cancelled"), reason=reason, at=at)
    if view.fault is not None:
        return Decision.block(view.run, view.fault)
    if workflow is None:
        return None
    return _replay(engine, view, workflow, checkout or Checkout(None), watchdog or engine.watchdog)


def _inbox_only(view: View, came_in: Sequence[Event]) -> Decision:
    """Return a decision that records inbox items, and nothing of what the workflow makes of them."""
    new = NewEvents(view.run.seq, view.run.last_at)
    for event in came_in:
        new.add(event)
    return Decision(
        run=view.run,
        seq=new.seq,
        at=new.at,
        events=tuple(new.events),
        drained=view.drained,
        ends=view.ends,
        is_unread=view.is_unread,
    )


def _unended(inbox: Sequence[InboxItem], ended: Collection[str]) -> list[Event]:
    """Return the inbox's events without second outcomes: of operations that lost a race, or were reported twice."""
    kept: list[Event] = []
    ends_now: set[str] = set()
    for event in (item.event for item in inbox):
        if event.phase == "ended":
            if event.op_id in ended or event.op_id in ends_now:
                continue
            ends_now.add(event.op_id)
        kept.append(event)
    return kept


@dataclass(slots=True)
class _Replayed:
    """What a turn has replayed so far: new events, what came in with them, and what the workflow asks for."""

    new: NewEvents
    came_in: Sequence[Event] = ()
    asked: Sequence[Command] = ()
    limits: KeyedLimits = field(default_factory=dict)
    is_whole: bool = False


def _replay(
    engine: Engine, view: View, workflow: registry.Workflow[..., object], checkout: Checkout, watchdog: Watchdog
) -> Decision:
    """Replay the part of the log that the replay lacks, feed it the inbox, and collect what the workflow asks for."""
    run, replayed = view.run, _Replayed(NewEvents(view.run.seq, view.run.last_at))
    replay = checkout.replay = checkout.replay or _new_replay(engine, view, workflow)
    fault: DurableError | None = None
    try:
        try:
            _feed(engine, view, replay, watchdog.watch(run.id), replayed)
        finally:
            goes_on = replayed.is_whole and replay.fault is None and replay.outcome is None
            if not (engine.replays.keeps and goes_on):
                watchdog.watch(run.id).run(replay.park)
    except (TurnTooLong, WorkflowCodeError) as error:
        fault = error
    fault = fault or replay.fault or unclosable(replay)
    # A workflow that ends needs room in the log for its end only.
    limit, length = engine.settings.max_events, replayed.new.seq
    if fault is None and replay.outcome is None and 0 < limit < length:
        fault = LogTooLong(run.id, length, limit)
    if isinstance(fault, LogTooLong):
        return replace(_fail(view, replayed.came_in, fault), taken=replay.taken, at=replayed.new.at)
    return Decision.block(run, fault) if fault is not None else _decision(view, replay, replayed)


def _feed(engine: Engine, view: View, replay: Replay, watch: TurnWatch, replayed: _Replayed) -> None:
    """Feed the replay what it lacks and what has come in, and take what the workflow asks for."""
    new = replayed.new
    if view.past:
        watch.run(replay.feed, view.past, view.requests, replaying=True)
    replayed.came_in = _unended(view.inbox, replay.ended)
    _add(new, replayed.came_in, replay)
    watch.run(replay.feed, new.events, view.requests)
    new.at = max(new.at, engine.now())
    replayed.asked = _take_commands(engine, view.run.id, replay, watch, new)
    if calls := limited(replayed.asked):
        watch.run(find_keys, view.run.id, calls, view.requests, replayed.limits)
    replayed.is_whole = True


def _decision(view: View, replay: Replay, replayed: _Replayed) -> Decision:
    """Return the decision of a turn in which nothing was wrong."""
    new, asked = replayed.new, replayed.asked
    return Decision(
        run=view.run,
        seq=new.seq,
        at=new.at,
        events=tuple(new.events),
        drained=view.drained,
        commands=tuple(asked),
        outcome=replay.outcome,
        reason=replay.cancel.reason if replay.cancel else None,
        is_plain_end=replay.outcome is not None and replay.has_only_steps_and_waits,
        open_waits=() if replay.outcome is None else replay.open_waits,
        taken=replay.taken,
        refused=_refused(asked, new.events, replay),
        requests=view.requests,
        limits=replayed.limits,
        ends=view.ends,
        is_unread=view.is_unread,
    )


def _fail(view: View, came_in: Sequence[Event], fault: LogTooLong) -> Decision:
    """Fail the run: a log that grows without end makes each turn longer than the last."""
    failed = Outcome(status="failed", value=codec.encode_error(fault), error=fault)
    return replace(_inbox_only(view, came_in), outcome=failed)


def _add(new: NewEvents, came_in: Sequence[Event], replay: Replay) -> None:
    """Add what has come in to the new events, and the start of the run after its creation."""
    for event in came_in:
        new.add(event)
        if isinstance(event, events.RunCreated):
            info = replay.info
            new.add(events.RunStarted(at=info.started_at, public_url=info.public_url, continue_at=info.continue_at))


def _new_replay(engine: Engine, view: View, workflow: registry.Workflow[..., object]) -> Replay:
    """Return a replay that has been fed nothing."""
    created = view.past[0] if view.past else view.inbox[0].event
    assert isinstance(created, events.RunCreated), f"the log of {view.run.id} begins with {created.kind}"
    started = next((e for e in view.past if isinstance(e, events.RunStarted)), None)
    if started is None:
        at = max(engine.now(), view.run.last_at, created.at)
        limit = engine.settings.max_events
        # A process of an older version does not know the field, so it is written only where it is needed.
        continue_at = limit // 2 if 0 < limit < 2 * CONTINUE_AT else None
        started = events.RunStarted(at=at, public_url=engine.settings.public_url, continue_at=continue_at)
    # A run that began without the setting, and was blocked for it, goes on once a process has it.
    started = replace(started, public_url=started.public_url or engine.settings.public_url)
    info = RunInfo.of(view.run.id, view.run.name, created, started)
    return Replay(workflow, info, created.args, view.requests, max_operations=engine.settings.max_events)


def _take_commands(engine: Engine, run_id: str, replay: Replay, watch: TurnWatch, new: NewEvents) -> list[Command]:
    """Take the workflow's commands and add their events.  Feed each new hook back, until it asks for no more hooks."""
    asked: list[Command] = []
    closed: set[str] = set()
    opened: dict[str, str] = {}
    while True:
        taken = replay.take()
        asked += taken
        created = []
        for command in taken:
            if isinstance(command, commands.CloseHook):
                closed.add(command.op_id)
            elif isinstance(command, commands.CreateHook):
                is_own = command.drawn or command.is_handed_over
                owner = None if is_own else _owner(engine, run_id, command.token, opened, closed)
                event = _event(command, new.at)
                if owner is None:
                    opened[command.token] = command.op_id
                else:
                    event = events.HookConflicted(
                        at=new.at,
                        op_id=command.op_id,
                        name=command.name,
                        digest=command.digest,
                        token=command.token,
                        owner=owner,
                    )
                created.append(new.add(event))
        if not created:
            break
        watch.run(replay.feed, created)
    for command in asked:
        # What is emitted goes to its stream alone, since it may be long.
        if not isinstance(command, commands.CreateHook | commands.EmitItem):
            new.add(_event(command, new.at))
    return asked


def _owner(engine: Engine, run_id: str, token: str, opened: dict[str, str], closed: set[str]) -> str | None:
    """
    Return the id of the run that holds a token, if one does.

    Args:
        opened: Hooks that this turn opens, by token.
        closed: Ids of the hooks that this turn closes.
    """
    if token in opened and opened[token] not in closed:
        return run_id
    with engine.store.read() as tx:
        found = hooks.owner(tx, token)
    if found is None or (found[0] == run_id and found[1] in closed):
        return None
    return found[0]


def _refused(asked: Sequence[Command], new: Sequence[Event], replay: Replay) -> list[str]:
    """Return the ids of requests that came to hooks which are closed."""
    touched = {c.op_id for c in asked if isinstance(c, commands.CloseHook)}
    touched |= {e.op_id for e in new if isinstance(e, events.HookReceived)}
    if not touched:
        return []
    return [request_id for op_id in sorted(touched - replay.open_hooks) for request_id in replay.queued(op_id)]


#: The event of an operation that is withdrawn, by its kind.
_WITHDRAWN: dict[str, type[Event]] = {
    "step": events.StepCancelled,
    "wait": events.WaitCancelled,
    "child": events.ChildCancelled,
}


def _event(command: commands.Recorded, at: int) -> Event:
    """Return the event that records a command."""
    match command:
        case commands.CreateStep(op_id=op_id, name=name, digest=digest, args=args):
            return events.StepCreated(at=at, op_id=op_id, name=name, digest=digest, args=args)
        case commands.CreateWait(op_id=op_id, digest=digest, due_at=due_at):
            return events.WaitCreated(at=at, op_id=op_id, digest=digest, due_at=due_at)
        case commands.CreateChild(op_id=op_id, name=name, digest=digest, args=args, run_id=run_id):
            return events.ChildCreated(at=at, op_id=op_id, name=name, digest=digest, args=args, run_id=run_id)
        case commands.CloseHook(op_id=op_id):
            return events.HookClosedEvent(at=at, op_id=op_id)
        case commands.Withdraw(op_id=op_id, kind=kind):
            return _WITHDRAWN[kind](at=at, op_id=op_id)
        case commands.RecordMarker(op_id=op_id, name=name):
            return events.MarkerRecorded(at=at, op_id=op_id, name=name)
        case commands.SetAttributes(op_id=op_id, attributes=attributes):
            return events.AttributesSet(at=at, op_id=op_id, attributes=attributes)
        case commands.PublishValue(op_id=op_id, name=name, value=value):
            return events.ValuePublished(at=at, op_id=op_id, name=name, value=value)
        case commands.SendReply(op_id=op_id, request_id=request_id):
            return events.ReplySent(at=at, op_id=op_id, request_id=request_id)
        case commands.CreateHook(op_id=op_id, name=name, digest=digest, token=token):
            return events.HookCreated(at=at, op_id=op_id, name=name, digest=digest, token=token)
