"""What a turn decides is made once; a run is woken in one way; an attempt is given up in one way."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from durable import create_hook, registry, step, workflow
from durable.attempts import outcome
from durable.attempts.claim import Address, claim
from durable.engine import Engine
from durable.store import DriveRow
from durable.turns.commit import commit
from durable.turns.decide import decide
from durable.turns.decision import Decision
from durable.turns.drive import drive
from durable.turns.view import View, read


@step(retry_backoff=0)
def counts() -> int:
    return 1


@step(max_retries=0)
def counts_once() -> int:
    return 1


@workflow
async def one_step() -> int:
    return await counts()


@workflow
async def one_attempt() -> int:
    return await counts_once()


@workflow
async def opens_a_hook(token: str) -> None:
    create_hook(token=token)


def view_of(engine: Engine, run_id: str) -> View:
    """What the run's next turn reads."""
    with engine.store.read() as tx:
        view = read(tx, run_id, engine.now())
    assert view is not None
    return view


@pytest.fixture
def sent(engine, monkeypatch) -> list[tuple[str, str]]:
    """The tasks that are sent, each with the run that the message or its header names."""
    messages: list[tuple[str, str]] = []

    def keep(copies: list[Any]) -> bool:
        for each in copies:
            drives = each.what.tasks[-1] if hasattr(each.what, "tasks") else each.what
            messages.append((each.what.name, drives.args[0]))
        return True

    monkeypatch.setattr(engine.dispatch.broker, "send", keep)
    return messages


def test_a_decision_cannot_be_changed(engine):
    """Not by the files that write it, nor by anything else."""
    run = engine.start(one_step)
    decision = decide(engine, view_of(engine, run.id), one_step)

    assert decision is not None
    for field in dataclasses.fields(Decision):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(decision, field.name, None)


def test_a_commit_leaves_the_decision_as_it_is(engine):
    """Also when the run ends with it: the end, and what came in meanwhile, are the commit's to add."""
    run = engine.start(opens_a_hook, f"hook-of-{engine.process_id}")
    decision = decide(engine, view_of(engine, run.id), opens_a_hook)
    assert decision is not None
    before = dataclasses.replace(decision, events=tuple(decision.events), commands=tuple(decision.commands))

    commit(engine, decision)

    after = dataclasses.replace(decision, events=tuple(decision.events), commands=tuple(decision.commands))
    assert after == before
    assert [event.kind for event in run.events()] == [*(event.kind for event in before.events), "run_completed"]


@pytest.mark.parametrize("by", ["id", "row", "route"])
def test_a_run_is_woken_by_whatever_names_it(engine, sent, by):
    """By its id, by its row, or by what its messages are made from: a turn goes to its queue."""
    run = engine.start(one_step)
    row = engine.client.find(run.id)
    sent.clear()

    engine.send_turns({"id": run.id, "row": row, "route": DriveRow(run.id, row.queue, row.priority)}[by])

    assert sent == [("durable.drive", run.id)]


def test_an_unknown_run_is_not_woken(engine, sent):
    """It was pruned, say."""
    engine.send_turns("unknown")

    assert sent == []


@pytest.mark.parametrize(("flow", "task"), [(one_step, "next attempt"), (one_attempt, "turn")])
def test_giving_an_attempt_up_sends_the_next_message(engine, sent, flow, task):
    """The message is the next attempt, or a turn that reads the failure."""
    run = engine.start(flow)
    drive(engine, run.id)
    body = counts if flow is one_step else counts_once
    held = claim(engine, registry.steps[body.name], Address(run.id, "r#1", 1), None)
    assert held is not None
    sent.clear()

    outcome.give_up_and_send(engine, outcome.held_by_this_process(engine, held))

    assert sent == [(body.name if task == "next attempt" else "durable.drive", run.id)]
