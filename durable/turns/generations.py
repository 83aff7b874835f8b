"""
The next generation of a run that continues as new, as the last turn of the one before it writes it.

The end of one generation and the start of the next are one transaction.  The hooks that are open go along: each is
closed here and opened there at the same moment, with what the workflow has not taken of it.  A process that is about to
put a payload in holds a lock on the hook's row, so its payload either goes along, or finds the hook of the next
generation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from .. import attributes, codec, events, registry
from ..client import make_row
from ..engine import Engine
from ..replay import CreateHook, OpenHook, Outcome, handed_over_op_ids
from ..store import InboxItem, Run, event_rows, hooks, published, requests, run_limits, run_log, runs, start_run
from ..store import attributes as stored_attributes
from ..store import generations as stored_generations
from .decision import Decision


@dataclass(frozen=True, slots=True)
class NextGeneration:
    """The run that was started, and the inbox items that went along with it."""

    run_id: str
    taken_along: Sequence[InboxItem]


def begin_next(
    engine: Engine, tx: Connection, decision: Decision, late: Sequence[InboxItem], run_id: str, now: int
) -> NextGeneration:
    """
    Start the next generation, in the transaction that ends this one and has closed its hooks.

    Args:
        late: The inbox items that the turn has not read.
        run_id: The id of the next generation.
    """
    run, outcome = decision.run, decision.outcome
    assert outcome is not None
    renamed = handed_over_op_ids(outcome.hooks)
    if run.first_run_id is None:
        stored_generations.record_first(tx, run.id)

    following = _row(engine, run, outcome, run_id, now)
    sending = engine.dispatch.plan(now)
    created = events.RunCreated(
        at=now,
        name=run.name,
        args=str(outcome.value),
        scheduled_for=run.scheduled_for,
        continues=run.id,
        handed_over=_hand_over_hooks(tx, run, outcome.hooks, run_id, renamed, now),
    )
    start_run.create(tx, following, created, sending, _attributes(tx, decision, late))
    new = [*decision.events, *(item.event for item in late)]
    published.hand_over(tx, run.id, run_id, [event for event in new if isinstance(event, events.ValuePublished)])
    workflow = registry.workflows.get(run.name)
    if workflow is not None and workflow.limits:
        run_limits.hand_over(tx, run.id, run_id)

    taken_along = [item for item in late if isinstance(item.event, events.HookReceived) and item.event.op_id in renamed]
    received = _received(tx, run, outcome, taken_along, now)
    run_log.post_all(tx, [(run_id, replace(event, op_id=renamed[event.op_id]), sending) for event in received])
    requests.hand_over(tx, _request_ids(received, outcome), run_id)
    return NextGeneration(run_id, taken_along)


def _hand_over_hooks(
    tx: Connection, run: Run, open_hooks: Sequence[OpenHook], run_id: str, renamed: Mapping[str, str], now: int
) -> tuple[dict[str, str | None], ...]:
    """Open this generation's hooks for the next one.  Return what its first event says of each."""
    handed_over: list[dict[str, str | None]] = []
    for hook in open_hooks:
        op_id = renamed[hook.op_id]
        row = _open(tx, run, hook, run_id, op_id, now + len(handed_over))
        if row is not None:
            handed_over.append({"op_id": op_id, "name": row.name, "token": row.token, "label": hook.label})
    return tuple(handed_over)


def _received(
    tx: Connection, run: Run, outcome: Outcome, late: Sequence[InboxItem], now: int
) -> list[events.HookReceived]:
    """Return what the workflow has not taken, and then what it has not even seen."""
    unread = [
        events.HookReceived(at=now, op_id=each.op_id, payload=each.payload, request_id=each.request_id)
        for each in outcome.unread
    ]
    arrived = event_rows.load_large_values(tx, run.id, [item.event for item in late])
    return [event for event in (*unread, *arrived) if isinstance(event, events.HookReceived)]


def _row(engine: Engine, run: Run, outcome: Outcome, run_id: str, now: int) -> Run:
    """
    Return the row of the next generation.

    Whatever a run belongs to goes along here, by columns of its row: its parent, trace and schedule.
    The idempotency key stays with the first generation, whose row is kept while the run goes on.
    """
    return make_row(
        engine,
        run.name,
        run_id=run_id,
        digest=outcome.digest,
        now=now,
        queue=run.queue,
        priority=run.priority,
        parent_run_id=run.parent_run_id,
        parent_op_id=run.parent_op_id,
        trace_context=runs.trace_context(engine.store.vault, run.id, run.trace_context),
        scheduled_for=run.scheduled_for,
        first_run_id=run.first_run_id or run.id,
        generation=(run.generation or 1) + 1,
    )


def _open(tx: Connection, run: Run, hook: OpenHook, run_id: str, op_id: str, now: int) -> hooks.Hook | None:
    """Open a hook of *run*, which is closed now, in the next generation; None if another run has its token."""
    row = hooks.find_of_run(tx, run.id, hook.op_id)
    if row is None:
        return None
    command = CreateHook(
        op_id=op_id,
        name=row.name,
        digest="",
        token=row.token,
        drawn=False,
        config=row.config,
        metadata=hooks.metadata_of(tx, row),
    )
    hooks.create(tx, run_id, command, now, closed=False)
    return row


def _attributes(tx: Connection, decision: Decision, late: Sequence[InboxItem]) -> dict[str, str]:
    """Return the attributes of the run with the changes of this turn, which are written after its end."""
    new = (*decision.events, *(item.event for item in late))
    changes = [event.attributes for event in new if isinstance(event, events.AttributesSet)]
    return attributes.merged(stored_attributes.read(tx, decision.run.id), *changes)


def _request_ids(received: Sequence[events.HookReceived], outcome: Outcome) -> set[str]:
    """Return the ids of the webhook requests that the next generation is given."""
    ids = {event.request_id for event in received if event.request_id is not None}
    for text in (outcome.value, *(event.payload for event in received)):
        ids |= codec.request_ids(text or "")
    return ids


def forward(engine: Engine, tx: Connection, run: Run, event: events.Event, now: int) -> list[str]:
    """Post an event to the last generation of a run that has continued as new; return the id of the run to wake."""
    last = stored_generations.latest(tx, run.id)
    if last is None or last.ended:
        return []
    run_log.post(tx, last.id, event, engine.dispatch.plan(now))
    return [last.id]
