"""Pause and resume on every database: what is paused begins nothing, loses nothing, and goes on."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from driving import all_databases, go, settle, settle_family
from giving_up import gated, note, seen
from limited import Process

from durable import (
    ConfigurationError,
    Request,
    Run,
    RunCancelled,
    RunNotFound,
    concurrency,
    create_hook,
    failpoints,
    get_step_metadata,
    list_runs,
    receiver,
    registry,
    resume_hook,
    sleep,
    step,
    workflow,
)
from durable.attempts.attempt import attempt
from durable.attempts.claim import Address
from durable.client import describe, pauses
from durable.recovery.sweep import find_due, sweep
from durable.store import received, schema
from durable.store import runs as runs_store
from durable.turns import wake
from durable.turns.conclude import conclude
from durable.turns.drive import drive
from durable.web import create_blueprint
from durable.web.wsgi_request import RECEIVE

pytestmark = all_databases()


@workflow
async def takes_breaks(token: str) -> list[str]:
    """A step, a hook, a step; a note when it is cancelled."""
    try:
        await note("before")
        payload = await create_hook(token=token)
        await note(payload)
        return [payload]
    except asyncio.CancelledError:
        await note("cleaned up")
        raise


@workflow
async def naps_between() -> str:
    await sleep("1ms")
    await note("rested")
    return "done"


@workflow
async def holds_several(count: int) -> list[Any]:
    return list(await asyncio.gather(*(note(f"item {number}") for number in range(count))))


@workflow
async def goes_through_a_gate(how: str) -> str:
    return await gated(how)


def started(engine: Any, called: Any, *args: Any) -> Run[Any]:
    run = engine.start(called, *args)
    settle(engine, run)
    return run


def rows_of(engine: Any, table: sa.Table, run: Run[Any]) -> list[Any]:
    with engine.store.read() as tx:
        return list(tx.execute(sa.select(table).where(table.c.run_id == run.id)).mappings())


def attempt_all(engine: Any, run: Run[Any]) -> list[Any]:
    """Deliver the message of each pending step; what came of each."""
    pending = [row for row in rows_of(engine, schema.steps, run) if row["status"] == "pending"]
    return [
        attempt(engine, registry.steps[row["name"]], Address(run.id, row["op_id"], row["attempt"]), None)
        for row in pending
    ]


def has_no_message_due(engine: Any, run: Run[Any]) -> bool:
    """Whether the sweep will never send anything for the run."""
    lists = (schema.steps, schema.inbox)
    return all(row["next_send_at"] is None for table in lists for row in rows_of(engine, table, run))


def test_a_paused_run_takes_no_turn_and_goes_on_after_the_resume(engine):
    """A payload that comes meanwhile is kept, and taken in once."""
    token = secrets.token_hex(8)
    run = started(engine, takes_breaks, token)
    assert run.pause("the shop is closed") is True
    assert run.paused is True
    assert run.status == "running"

    resume_hook(token, "after")
    settle(engine, run)
    assert seen(run.id).did == ["before"]

    assert run.resume() is True
    assert run.paused is False
    settle(engine, run)
    assert run.result(timeout=0) == ["after"]
    kinds = [event.kind for event in run.events()]
    assert kinds.count("hook_received") == 1
    assert kinds.index("run_paused") < kinds.index("hook_received") < kinds.index("run_resumed")


def test_a_second_pause_and_a_second_resume_change_nothing(engine):
    """Both say so; a run that has ended cannot be paused, and an unknown one is an error."""
    token = secrets.token_hex(8)
    run = started(engine, takes_breaks, token)
    assert (run.pause(), run.pause("again")) == (True, False)
    assert (run.resume(), run.resume()) == (True, False)
    resume_hook(token, "x")
    settle(engine, run)
    assert run.status == "completed"
    assert run.pause() is False
    assert [event.kind for event in run.events()].count("run_paused") == 1
    with pytest.raises(RunNotFound):
        engine.get_run("no such run").pause()
    with pytest.raises(ValueError, match="at most 1,000"):
        run.pause("x" * 1_001)


def test_a_pause_outruns_a_turn_that_is_decided(engine):
    """A turn that has read the run before the pause is not committed after it."""
    run = engine.start(takes_breaks, secrets.token_hex(8))
    paused: list[bool] = []

    def pause_once(point: str) -> None:
        if point == "turn.read" and not paused:
            paused.append(run.pause())

    with failpoints.watched(pause_once):
        drive(engine, run.id)

    assert paused == [True]
    assert rows_of(engine, schema.steps, run) == []
    assert run.status == "pending"
    assert run.resume()
    settle(engine, run)
    assert seen(run.id).did == ["before"]


def test_steps_of_a_paused_run_are_not_claimed_and_not_sent_again(engine):
    """Their messages find nothing; the sweep has nothing to send until the resume, and then sends them once."""
    run = engine.start(holds_several, 3)
    drive(engine, run.id)
    assert run.pause()
    assert attempt_all(engine, run) == [None] * 3
    assert has_no_message_due(engine, run)

    assert run.resume()
    assert all(row["next_send_at"] is not None for row in rows_of(engine, schema.steps, run))
    settle(engine, run)
    assert run.result(timeout=0) is not None
    assert sorted(seen(run.id).did) == ["item 0", "item 1", "item 2"]


@pytest.mark.parametrize("how", ["returns", "raises"])
def test_an_attempt_that_runs_ends_while_the_run_is_paused(engine, how):
    """Its outcome is recorded, and the run takes it in after the resume; a next attempt waits for the resume too."""
    run = engine.start(goes_through_a_gate, how)
    drive(engine, run.id)
    if not rows_of(engine, schema.steps, run):
        pytest.fail("the step was not called")
    (row,) = rows_of(engine, schema.steps, run)
    address = Address(run.id, row["op_id"], 1)
    worker = threading.Thread(target=attempt, args=(engine, registry.steps[row["name"]], address, None))
    worker.start()
    assert seen(run.id).begun.wait(10)
    assert run.pause()
    seen(run.id).gate.set()
    worker.join(10)

    drive(engine, run.id)
    assert run.status == "running"
    assert has_no_message_due(engine, run)
    if how == "raises":
        assert attempt_all(engine, run) == [None]
        assert seen(run.id).did == ["gated 1"]
    assert run.resume()
    if how == "returns":
        settle(engine, run)
        assert run.result(timeout=0) == "done"
    else:
        assert [finished is not None for finished in attempt_all(engine, run)] == [True]
        assert seen(run.id).did == ["gated 1", "gated 2"]


def test_a_sleep_that_ends_meanwhile_is_taken_in_after_the_resume(engine):
    """Its end is recorded once, and no message is sent for it again and again."""
    run = engine.start(naps_between)
    drive(engine, run.id)
    assert run.pause()
    (wait,) = rows_of(engine, schema.waits, run)
    while not wake.fire(engine, run.id, wait["op_id"]):
        pass
    drive(engine, run.id)
    assert has_no_message_due(engine, run)
    assert run.resume()
    settle(engine, run)
    assert run.result(timeout=0) == "done"
    assert [event.kind for event in run.events()].count("wait_completed") == 1


def test_a_cancel_ends_the_pause_of_a_run(engine):
    """Its cleanup runs."""
    run = started(engine, takes_breaks, secrets.token_hex(8))
    assert run.pause()
    assert run.cancel("enough")
    settle(engine, run)
    assert run.paused is False
    assert seen(run.id).did == ["before", "cleaned up"]
    with pytest.raises(RunCancelled, match="enough"):
        run.result(timeout=0)


def test_a_run_that_was_paused_before_it_began_begins_after_the_resume(engine):
    """Its log begins as that of any run."""
    run = engine.start(holds_several, 1)
    assert run.pause()
    drive(engine, run.id)
    assert run.status == "pending"
    assert run.resume()
    settle(engine, run)
    assert run.status == "completed"
    assert [event.kind for event in run.events()][:2] == ["run_created", "run_started"]


def test_a_paused_workflow_holds_its_runs_and_those_that_start_later(engine, own_registry):
    """All go on after the resume, also those of another process that knew nothing of the pause."""

    @workflow(name=f"held_{secrets.token_hex(4)}")
    async def held() -> str:
        return await note("went on")

    before = engine.start(held)
    assert pauses.pause(engine, "workflow", held.name, "a bad deploy") is True
    assert pauses.pause(engine, "workflow", held.name) is False
    later = engine.start(held)
    for run in (before, later):
        drive(engine, run.id)
        assert (run.status, run.paused) == ("pending", True)
    assert [each["kind"] for each in describe.describe(engine, later.id)["paused_by"]] == ["workflow"]
    (shown,) = [each for each in pauses.list_pauses(engine) if each["name"] == held.name]
    assert (shown["reason"], shown["runs"], shown["resuming"]) == ("a bad deploy", 2, False)

    assert pauses.resume(engine, "workflow", held.name) is True
    sweep(engine)
    assert not [each for each in pauses.list_pauses(engine) if each["name"] == held.name]
    for run in (before, later):
        settle(engine, run)
        assert run.status == "completed"
    assert pauses.resume(engine, "workflow", held.name) is False


def test_a_run_that_is_paused_twice_goes_on_after_both_resumes(engine, own_registry):
    """Its own pause is one cause, that of its workflow another."""

    @workflow(name=f"twice_{secrets.token_hex(4)}")
    async def twice() -> str:
        return await note("went on")

    run = engine.start(twice)
    assert run.pause()
    assert pauses.pause(engine, "workflow", twice.name)
    assert run.resume() is True
    assert run.paused is True
    drive(engine, run.id)
    assert run.status == "pending"
    assert pauses.resume(engine, "workflow", twice.name)
    settle(engine, run)
    assert run.status == "completed"


def test_what_did_not_know_of_a_pause_is_paused_by_the_sweep(engine, own_registry):
    """A process that began a run with an older knowledge is found after ``beat_interval``."""

    @workflow(name=f"unaware_{secrets.token_hex(4)}")
    async def unaware(token: str) -> str:
        return await create_hook(token=token)

    assert pauses.pause(engine, "workflow", unaware.name)
    engine.pauses._active = frozenset()
    token = secrets.token_hex(8)
    run = started(engine, unaware, token)
    assert (run.status, run.paused) == ("running", False)
    with engine.store.begin() as tx:
        tx.execute(sa.update(schema.pauses).values(next_check_at=0))
    assert find_due(engine).pauses
    sweep(engine)
    assert run.paused is True
    assert not find_due(engine).pauses
    pauses.resume(engine, "workflow", unaware.name)
    resume_hook(token, "x")
    settle(engine, run)
    assert run.result(timeout=0) == "x"


def test_a_workflow_goes_on_at_a_bounded_rate(engine, own_registry, monkeypatch):
    """So many runs a second; the next ones are due a second later."""
    monkeypatch.setattr(pauses.pause_runs, "BATCH", 2)

    @workflow(name=f"many_{secrets.token_hex(4)}")
    async def many() -> str:
        return "done"

    runs = [engine.start(many) for _ in range(5)]
    assert pauses.pause(engine, "workflow", many.name)
    assert [run.paused for run in runs] == [True] * 5
    assert pauses.resume(engine, "workflow", many.name)
    assert [run.paused for run in runs] == [False, False, True, True, True]
    with engine.store.begin() as tx:
        is_this = schema.pauses.c.name == many.name
        row = tx.execute(sa.select(schema.pauses).where(is_this)).one()
        tx.execute(sa.update(schema.pauses).where(is_this).values(next_check_at=row.next_check_at + 60_000_000))
    assert row.next_check_at - row.resuming_at >= 1_000_000 * 2 // pauses.RESUMED_PER_SEC
    sweep(engine)
    assert sum(run.paused for run in runs) == 3
    for _ in range(3):
        with engine.store.begin() as tx:
            tx.execute(sa.update(schema.pauses).where(schema.pauses.c.name == many.name).values(next_check_at=0))
        pauses.go_on_with_pauses(engine)
    assert not any(run.paused for run in runs)


def test_a_cancelled_run_of_a_paused_workflow_cleans_up(engine, own_registry):
    """The pause holds the others."""
    run, other = (started(engine, takes_breaks, secrets.token_hex(8)) for _ in range(2))
    assert pauses.pause(engine, "workflow", takes_breaks.name)
    try:
        assert run.cancel()
        settle(engine, run)
        assert run.status == "cancelled"
        assert other.paused is True
    finally:
        pauses.resume(engine, "workflow", takes_breaks.name)


def test_a_paused_queue_holds_turns_and_steps(engine, own_registry):
    """The runs of the queue, and the steps that other runs send to it."""
    queue = f"slow_{secrets.token_hex(4)}"

    @step(name=f"sent_{queue}", queue=queue)
    def sent() -> str:
        return "sent"

    @workflow(name=f"calls_{queue}")
    async def calls() -> str:
        return await sent()

    own, other = calls.with_options(queue=queue).start(), engine.start(calls)
    assert pauses.pause(engine, "queue", queue)
    drive(engine, own.id)
    drive(engine, other.id)
    assert (own.status, own.paused) == ("pending", True)
    assert (other.status, other.paused) == ("running", False)
    assert attempt_all(engine, other) == [None]
    assert has_no_message_due(engine, other)

    assert pauses.resume(engine, "queue", queue)
    assert all(row["next_send_at"] is not None for row in rows_of(engine, schema.steps, other))
    for run in (own, other):
        settle(engine, run)
        assert run.result(timeout=0) == "sent"
    assert rows_of(engine, schema.paused_runs, other) == []


def test_an_unknown_workflow_cannot_be_paused(engine):
    """The error names what is near."""
    near = takes_breaks.name[:-1]
    with pytest.raises(ConfigurationError, match="takes_breaks"):
        pauses.pause(engine, "workflow", near)


# Limits


pause_slots = concurrency("pause_slots", 1)


@step(limits=[pause_slots])
def takes_slot(name: str) -> str:
    return name


@workflow
async def needs_slot(name: str) -> str:
    return await takes_slot(name)


def test_a_paused_step_gives_its_slot_to_another_run(database):
    """And waits in line again after the resume: no slot is lost, and none is taken twice."""
    process = Process(database)
    try:
        first, second = process.start(needs_slot, "first"), process.start(needs_slot, "second")
        assert [message.run_id for message in process.sent] == [first.id]
        assert first.pause()
        sweep(process.engine)
        assert [message.run_id for message in process.sent] == [first.id, second.id]
        process.run_next()  # that of the paused run finds nothing
        assert (first.status, process.in_use()[""]) == ("running", 1)

        assert first.resume()
        sweep(process.engine)
        assert [message.run_id for message in process.sent] == [second.id]
        process.run_next()
        assert second.result(timeout=0) == "second"
        sweep(process.engine)
        process.run_next()
        process.turns()
        assert first.result(timeout=0) == "first"
        assert process.in_use()[""] == 0
    finally:
        process.close()


def test_a_retry_of_a_paused_run_gives_its_slot_back(database):
    """The next attempt waits for the resume, and holds no slot meanwhile."""
    process = Process(database)
    try:
        run = process.start(fails_with_slot, secrets.token_hex(4))
        _pauses[run.id] = run
        process.run_next()
        assert process.in_use()[""] == 0
        sweep(process.engine)
        assert process.sent == []
        assert run.resume()
        sweep(process.engine)
        process.run_next()
        process.turns()
        assert run.result(timeout=0) == 2
    finally:
        process.close()


_pauses: dict[str, Run[Any]] = {}


@step(limits=[concurrency("pause_retry_slots", 1)], retry_backoff=0)
def pauses_and_fails() -> int:
    metadata = get_step_metadata()
    if metadata.attempt == 1:
        assert _pauses[metadata.run_id].pause()
        raise ConnectionError("after the pause")
    return metadata.attempt


@workflow
async def fails_with_slot(name: str) -> int:
    return await pauses_and_fails()


# Receivers


shop_events = receiver("pauses.shop")


@shop_events.start(when=lambda request: True)
@workflow(name="pauses.receives")
async def receives(request: Request) -> str:
    return request.json()["id"]


def test_a_paused_receiver_keeps_its_requests(engine, own_registry):
    """The sender is answered as usual; the requests are routed in their order after the resume, each once."""
    app = flask.Flask("pauses")
    app.register_blueprint(create_blueprint(engine))
    client = app.test_client()
    assert engine.pause(receiver=shop_events, reason="an audit") is True
    answers = [client.post(f"{RECEIVE}pauses.shop", json={"id": f"evt_{n}"}).status_code for n in range(3)]
    assert answers == [202] * 3
    with engine.store.read() as tx:
        held = received.newest(tx, receiver="pauses.shop", outcomes=["waiting"], limit=10, oldest_first=True)
    assert [(row.run_id, row.waits_for, row.waits_until) for row in held] == [(None, None, None)] * 3
    sweep(engine)
    with engine.store.read() as tx:
        assert received.counts(tx)["pauses.shop", "waiting"] == 3
        # A database of a server has rows of other tests, which are old by then.
        assert not {row.request_id for row in held} & set(received.old(tx, engine.now() + 10**12, 1000))

    assert engine.resume(receiver="pauses.shop") is True
    with engine.store.read() as tx:
        routed = [received.find(tx, row.request_id) for row in held]
    runs = [engine.get_run(row.run_id) for row in routed]
    settle(engine, *runs)
    assert [run.result(timeout=0) for run in runs] == ["evt_0", "evt_1", "evt_2"]
    assert client.post(f"{RECEIVE}pauses.shop", json={"id": "evt_3"}).status_code == 202
    with engine.store.read() as tx:
        counts = received.counts(tx)
    assert ("pauses.shop", "waiting") not in counts
    assert not [each for each in engine.list_pauses() if each["name"] == "pauses.shop"]


def test_a_sender_that_waits_is_told_later(engine):
    """A request to a paused receiver whose step answers gets 202 when its time is over."""
    app = flask.Flask("pauses-manual")
    app.register_blueprint(create_blueprint(engine))
    engine.pause(receiver=slow_events)
    try:
        answer = app.test_client().post(f"{RECEIVE}pauses.slow", json={"id": "evt"})
        assert (answer.status_code, answer.get_json()["status"]) == (202, "pending")
    finally:
        engine.resume(receiver=slow_events)


slow_events = receiver("pauses.slow", respond_with="manual", timeout="50ms")


@slow_events.start(when=lambda request: True)
@workflow(name="pauses.answers")
async def answers_later(request: Request) -> None:
    await create_hook()


def test_what_is_named_is_one_thing(engine):
    """A call without a name, or with two, is a mistake."""
    for given in ({}, {"queue": "a", "workflow": "b"}):
        with pytest.raises(TypeError, match="Name one"):
            engine.pause(**given)


def test_a_filter_pauses_and_resumes_its_runs(engine):
    """Those that are open, and no others."""
    label = secrets.token_hex(4)
    labelled = takes_breaks.with_options(attributes={"label": label})
    runs = [labelled.start(secrets.token_hex(8)) for _ in range(3)]
    settle(engine, *runs)
    other = started(engine, takes_breaks, secrets.token_hex(8))
    assert list_runs(attributes={"label": label}).pause("why") == 3
    assert [run.paused for run in runs] == [True] * 3
    assert other.paused is False
    assert set(list_runs(attributes={"label": label}, paused=True)) == set(runs)
    assert list_runs(attributes={"label": label}).resume() == 3
    assert list(list_runs(attributes={"label": label}, paused=True)) == []


@pytest.fixture
def sees_due(engine: Any) -> Callable[[], None]:
    """Lets time pass until the next runs are due that a filter has resumed, without waiting, and lets them go on."""

    def go_on() -> None:
        is_this = sa.and_(schema.pauses.c.kind == "run", schema.pauses.c.name == "resuming")
        with engine.store.begin() as tx:
            tx.execute(sa.update(schema.pauses).where(is_this).values(next_check_at=0))
        sweep(engine)

    return go_on


def paused_batch(engine: Any, count: int) -> tuple[list[Run[Any]], dict[str, str]]:
    """Open runs that were paused by themselves, oldest first, and the attributes that choose them."""
    label = {"label": secrets.token_hex(4)}
    runs = [takes_breaks.with_options(attributes=label).start(secrets.token_hex(8)) for _ in range(count)]
    settle(engine, *runs)
    assert list_runs(attributes=label).pause("why") == count
    return runs, label


def resuming(engine: Any) -> list[int]:
    """How many runs wait to go on, as ``list_pauses`` has it."""
    return [each["runs"] for each in engine.list_pauses() if (each["kind"], each["name"]) == ("run", None)]


def test_runs_that_a_filter_resumes_go_on_at_a_bounded_rate(engine, own_registry, monkeypatch, sees_due):
    """However they are chosen, and by how many calls: so many at once, and the next ones when a second is over."""
    sees_due()
    monkeypatch.setattr(pauses.pause_runs, "BATCH", 2)
    monkeypatch.setattr(pauses, "_SECOND", 3600 * 1_000_000)
    runs, label = paused_batch(engine, 5)
    assert list_runs(attributes=label, status="running").resume() == 5
    assert sum(run.paused for run in runs) == 3
    assert resuming(engine) == [3]
    # A second call finds nothing to do, and lets nothing more go on.
    assert list_runs(attributes=label).resume() == 0
    more, other = paused_batch(engine, 1)
    assert list_runs(attributes=other).resume() == 1
    assert resuming(engine) == [4]
    sweep(engine)
    assert resuming(engine) == [4]

    sees_due()
    assert resuming(engine) == [2]
    sees_due()
    assert not any(run.paused for run in runs + more)
    assert resuming(engine) == []
    sees_due()
    with engine.store.read() as tx:
        assert tx.execute(sa.select(schema.pauses).where(schema.pauses.c.kind == "run")).all() == []
    assert rows_of(engine, schema.paused_runs, runs[0]) == []


def test_a_run_that_waits_to_go_on_can_be_resumed_paused_and_cancelled(engine, own_registry, monkeypatch, sees_due):
    """A resume of it alone overtakes the others, a new pause stays, and a cancel lets it clean up."""
    sees_due()
    monkeypatch.setattr(pauses.pause_runs, "BATCH", 1)
    monkeypatch.setattr(pauses, "_SECOND", 3600 * 1_000_000)
    runs, label = paused_batch(engine, 4)
    assert list_runs(attributes=label).resume() == 4
    first, resumed, paused, cancelled = sorted(runs, key=lambda run: (run.paused, run.id))
    assert (first.paused, resumed.paused) == (False, True)

    assert resumed.resume() is True
    assert (resumed.paused, resumed.resume()) == (False, False)
    assert paused.pause("again") is True
    assert cancelled.cancel()
    settle(engine, cancelled)
    assert cancelled.status == "cancelled"
    sees_due()
    sees_due()
    assert resuming(engine) == []
    assert paused.paused is True
    assert paused.resume() is True
    assert not any(run.paused for run in runs)


def test_a_resume_that_commits_behind_the_sweeps_back_is_not_forgotten(engine, own_registry, monkeypatch, sees_due):
    """The sweep finds no run that waits to go on, and deletes the row that leads to them: not if one has come since."""
    sees_due()
    runs, _ = paused_batch(engine, 2)
    assert pauses.resume_in_turn(engine, runs[0].id)
    resume_batch = pauses._resume_batch
    late = [runs[1]]

    def and_another_comes(on: Any, pause: Any) -> tuple[int, bool]:
        resumed, has_more = resume_batch(on, pause)
        if not has_more and late:
            assert pauses.resume_in_turn(engine, late.pop().id)
        return resumed, has_more

    monkeypatch.setattr(pauses, "_resume_batch", and_another_comes)
    sees_due()
    sees_due()
    assert ([run.paused for run in runs], late) == ([False, True], [])
    sees_due()
    assert not any(run.paused for run in runs)


# Child runs


@workflow(name="pauses.calls_below")
async def calls_below(token: str, depth: int) -> list[str]:
    """Two children on each level; the lowest ones wait for a payload."""
    if depth == 0:
        return [await create_hook(token=token)]
    called = [calls_below(f"{token}{place}", depth - 1) for place in "ab"]
    return [each for found in await asyncio.gather(*called) for each in found]


def family_of(engine: Any, token: str) -> list[Run[Any]]:
    """A run with two levels of children, itself first."""
    run = engine.start(calls_below, token, 2)
    settle_family(engine, run)
    return [run, *(engine.get_run(each) for each in below(engine, run.id))]


def below(engine: Any, run_id: str) -> list[str]:
    with engine.store.read() as tx:
        children = runs_store.open_children_of(tx, [run_id])
    return [*children, *(each for child in children for each in below(engine, child))]


def test_child_runs_are_paused_and_resumed_with_their_parent(engine, own_registry, sees_due):
    """If you ask for it, on every level; without it, they and their parent have pauses of their own."""
    sees_due()
    token = secrets.token_hex(4)
    family = family_of(engine, token)
    assert len(family) == 7
    assert family[0].pause() is True
    assert [run.paused for run in family] == [True] + [False] * 6
    # The run is paused already, its children are not.
    assert family[0].pause("all of them", children=True) is True
    assert all(run.paused for run in family)
    assert family[0].pause(children=True) is False
    for leaf in ("aa", "ab", "ba", "bb"):
        resume_hook(token + leaf, leaf)
    settle_family(engine, family[0])
    assert {run.status for run in family} == {"running"}

    assert family[0].resume(children=True) is True
    sees_due()
    assert not any(run.paused for run in family)
    assert family[0].resume(children=True) is False
    settle_family(engine, family[0])
    assert family[0].result(timeout=0) == ["aa", "ab", "ba", "bb"]


def test_many_runs_are_paused_and_resumed_with_their_children(engine, own_registry, sees_due):
    """The runs that match are counted, their children are not; a child that has ended is left alone."""
    sees_due()
    token = secrets.token_hex(4)
    family = family_of(engine, token)
    resume_hook(f"{token}aa", "over")
    settle_family(engine, family[0])
    going_on = [run for run in family if run.status == "running"]
    mine = list_runs(name=calls_below.name, since="1h", until=family[0].created_at + timedelta(microseconds=1))
    assert mine.pause(children=True) >= 1
    assert all(run.paused for run in going_on)
    (over,) = set(family) - set(going_on)
    assert (over.status, over.paused) == ("completed", False)
    assert mine.resume(children=True) >= 1
    sees_due()
    sees_due()
    assert not any(run.paused for run in family)
    family[0].cancel()
    settle_family(engine, family[0])


def test_runs_that_are_not_paused_cost_no_statement_more(engine):
    """A pause of another workflow, and its end, are known to the process: a turn and a claim ask for nothing more."""
    started(engine, holds_several, 2)
    counts: list[int] = []
    for paused in (False, True):
        if paused:
            assert pauses.pause(engine, "workflow", naps_between.name)
        statements: list[str] = []
        listener = lambda _c, _cursor, statement, *_: statements.append(statement)  # noqa: B023, E731
        sa.event.listen(engine.store.engine, "before_cursor_execute", listener)
        try:
            run = started(engine, holds_several, 2)
        finally:
            sa.event.remove(engine.store.engine, "before_cursor_execute", listener)
        assert run.status == "completed"
        counts.append(len(statements))
    pauses.resume(engine, "workflow", naps_between.name)
    assert counts[0] == counts[1]


def test_an_outcome_is_not_taken_in_while_other_steps_run_and_the_run_is_paused(engine):
    """A turn that would record it reads the run after the pause: it is not taken, and the outcome waits."""
    run = engine.start(holds_several, 12)
    drive(engine, run.id)
    row = next(row for row in rows_of(engine, schema.steps, run) if row["status"] == "pending")

    def pause_before_the_outcome(point: str) -> None:
        if point == "step.finished":
            run.pause()

    with failpoints.watched(pause_before_the_outcome):
        go(engine, partial(attempt_in_place, engine, run, row))
    assert run.paused is True
    assert [event.kind for event in run.events()].count("step_completed") == 0
    assert "step_completed" in [item["kind"] for item in rows_of(engine, schema.inbox, run)]

    assert run.resume()
    deadline = time.monotonic() + 20
    while run.status != "completed":
        assert time.monotonic() < deadline
        settle(engine, run)
    assert len(run.result(timeout=0)) == 12


def attempt_in_place(engine: Any, run: Run[Any], row: Any, continuation: Any) -> None:
    """Run an attempt as a worker does that goes on in place, where the engine does."""
    concludes = continuation and partial(conclude, engine, continuation)
    attempt(engine, registry.steps[row["name"]], Address(run.id, row["op_id"], 1), None, conclude=concludes)
