"""Logs of runs that never ran: what a workflow asks for, answered at once; in memory, or put into a database."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from durable import Durable, codec
from durable.events import Event, RunCreated, RunStarted, StepCompleted, StepCreated
from durable.registry.definitions import Workflow
from durable.replay import Replay, RunInfo
from durable.replay.commands import CreateStep
from durable.store import run_log
from durable.store.schema import inbox, runs

#: Microseconds since 1970: when the first event was, and from one to the next.
_BEGAN = 1_800_000_000_000_000
_LATER = 1_000


def steps_done(workflow: Workflow[..., Any], arguments: dict[str, Any], steps: int) -> list[Event]:
    """The log of a run of *workflow* up to the end of so many steps, one after the other; they gave a stamp."""
    args = codec.encode_arguments(codec.bind(workflow.signature, (), arguments))
    written: list[Event] = [_placed(1, RunCreated(at=0, name=workflow.name, args=args)), _placed(2, RunStarted(at=0))]
    replay = replay_of(workflow, written)
    replay.feed(written)
    for number in range(steps):
        (command,) = replay.take()
        assert isinstance(command, CreateStep)
        pair = [_placed(2 * number + 3, _created(command)), _placed(2 * number + 4, _completed(command, number))]
        replay.feed(pair)
        written += pair
    replay.park()
    return written


def replay_of(workflow: Workflow[..., Any], log: list[Event]) -> Replay:
    """A replay that was fed nothing yet."""
    created = log[0]
    assert isinstance(created, RunCreated)
    info = RunInfo(run_id="synthetic", name=workflow.name, started_at=log[1].at)
    return Replay(workflow, info, created.args)


def put_away(engine: Durable, workflow: Workflow[..., Any], arguments: dict[str, Any], written: list[Event]) -> str:
    """
    Store a run with this log, whose last event is still in its inbox; its id.

    Nothing is sent: ``engine.dispatch.send_turn`` brings it on.
    """
    run = engine.start_with(workflow, (), arguments, {"countdown": "30d"})
    now = engine.now()
    *past, news = (replace(event, at=now) for event in written)
    changes = {"status": "running", "turn": 1, "seq": past[-1].seq, "last_at": now, "started_at": now}
    with engine.store.begin() as tx:
        tx.execute(sa.delete(inbox).where(inbox.c.run_id == run.id))
        tx.execute(sa.update(runs).where(runs.c.id == run.id).values(not_before=None, **changes))
        run_log.append(tx, run.id, past)
        run_log.post(tx, run.id, news, engine.dispatch.plan(now))
    return run.id


def _placed(seq: int, event: Event) -> Event:
    return replace(event, seq=seq, at=_BEGAN + seq * _LATER)


def _created(command: CreateStep) -> StepCreated:
    return StepCreated(at=0, op_id=command.op_id, name=command.name, digest=command.digest, args=command.args)


def _completed(command: CreateStep, number: int) -> StepCompleted:
    result = json.dumps({"number": number, "at": 1.8e9 + number})
    return StepCompleted(at=0, op_id=command.op_id, attempt=1, started_at=_BEGAN, worker="host:1", result=result)
