"""Of many steps that a turn creates, only some are sent: processes that are at work on the run take the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, more_engines, settle
from trouble import cut_off, refused

from durable import DecryptionError, Durable, Run, registry, step, workflow
from durable.attempts.attempt import StepBody, attempt, run_claimed
from durable.attempts.claim import Address
from durable.attempts.go_on import go_on, record_in_place
from durable.attempts.outcome import release
from durable.recovery import sweep
from durable.recovery.housekeeping import Housekeeping
from durable.store import offers, schema
from durable.turns.continuation import Continuation
from durable.turns.drive import drive
from durable.turns.offers import LEAST

pytestmark = all_databases()

WIDTH = LEAST + 4

#: The numbers of the steps that have run, in order.
ran: list[int] = []


@step(name="offers.noop")
def noop(number: int) -> int:
    ran.append(number)
    return number


@step(name="offers.timed", timeout="60s")
def timed(number: int) -> int:
    return number


@step(name="offers.elsewhere", queue="heavy")
def elsewhere(number: int) -> int:
    return number


@workflow(name="offers.wide")
async def wide(width: int) -> int:
    return sum(await asyncio.gather(*map(noop, range(width))))


@workflow(name="offers.urgent", priority=5)
async def urgent(width: int) -> int:
    return sum(await asyncio.gather(*map(noop, range(width))))


@workflow(name="offers.unfit")
async def unfit(width: int) -> int:
    """Steps that Celery or the deadline has to watch, and steps of another queue."""
    return sum(await asyncio.gather(*map(timed, range(width)), *map(elsewhere, range(width))))


class Time:
    """A clock that moves by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def manner() -> dict[str, Any]:
    """In place on every database."""
    return {"continuation": "60s"}


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@pytest.fixture
def beating(engine: Durable) -> Iterator[Durable]:
    """The engine, whose process is registered as one that runs steps."""
    keeper = Housekeeping(engine)
    keeper._beat()
    yield engine
    keeper._unregister()


def begin(engine: Durable, made: Any, *args: Any) -> Run[int]:
    """Start a run, and take its first turn."""
    run: Run[int] = engine.start(made, *args)
    drive(engine, run.id)
    return run


def offered(engine: Durable, run: Run[Any]) -> list[str]:
    """The offered steps, in the order in which they are taken."""
    query = sa.select(schema.steps.c.op_id).where(
        schema.steps.c.run_id == run.id, schema.steps.c.offered_seq.is_not(None), schema.steps.c.sent_at.is_(None)
    )
    with engine.store.read() as tx:
        return list(tx.execute(query.order_by(schema.steps.c.offered_seq)).scalars())


def sent(engine: Durable, run: Run[Any]) -> int:
    """How many steps that wait were sent."""
    query = sa.select(sa.func.count()).where(
        schema.steps.c.run_id == run.id, schema.steps.c.sent_at.is_not(None), schema.steps.c.claim.is_(None)
    )
    with engine.store.read() as tx:
        return int(tx.execute(query).scalar_one())


def take_message(
    engine: Durable, run: Run[Any], op_id: str = "r#1", clock: Time | None = None, most: int = 10**6
) -> Continuation:
    """Do what a worker does with the message of a step: run it, and up to *most* steps that it goes on with."""
    clock = clock or Time()
    continuation = Continuation(engine, "celery", has_offers=True, clock=clock)
    concluded = partial(record_in_place, engine, continuation)
    attempt(engine, registry.steps["offers.noop"], Address(run.id, op_id, 1), None, conclude=concluded)
    go_on(engine, continuation, run.id)
    while most and (held := continuation.begin()) is not None:
        run_claimed(engine, held, StepBody(registry.steps[held.name]), concluded)
        clock.now += 1
        go_on(engine, continuation, run.id)
        most -= 1
    return continuation


def test_c101_a_wide_turn_sends_some_steps_and_offers_the_others(engine):
    """They are offered in the order of their calls."""
    run = begin(engine, wide, WIDTH)

    assert sent(engine, run) == LEAST
    assert offered(engine, run) == [f"r#{number}" for number in range(LEAST + 1, WIDTH + 1)]


def test_a_process_takes_what_is_offered_after_its_message(engine):
    """One message, and all offered steps have run, in their order; the sent ones wait for their own messages."""
    run = begin(engine, wide, WIDTH)

    take_message(engine, run)

    assert ran == [0, *range(LEAST, WIDTH)]
    assert (sent(engine, run), offered(engine, run)) == (LEAST - 1, [])
    settle(engine, run)
    assert run.result(timeout=0) == sum(range(WIDTH))


def test_two_messages_take_different_steps(engine):
    """Each takes the first that the other has not."""
    run = begin(engine, wide, WIDTH)

    first, second = (take_message(engine, run, op_id, most=0).next for op_id in ("r#1", "r#2"))

    assert (first.op_id, second.op_id) == (f"r#{LEAST + 1}", f"r#{LEAST + 2}")


def test_the_outcome_and_the_claim_of_the_next_offered_step_are_one_transaction(engine):
    """Nothing else is written or read between two offered steps."""
    run = begin(engine, wide, WIDTH)
    continuation = take_message(engine, run, most=0)
    held = continuation.begin()
    statements: list[str] = []
    sa.event.listen(engine.store.engine, "before_cursor_execute", lambda c, cu, text, *_: statements.append(text))
    engine.store.now()
    del statements[:]

    run_claimed(engine, held, StepBody(noop), partial(record_in_place, engine, continuation))

    written = [text.split()[0] for text in statements if not text.startswith(("BEGIN", "PRAGMA", "SELECT"))]
    assert written == (["WITH"] if engine.store.dialect == "postgresql" else ["DELETE", "INSERT", "UPDATE"])
    assert continuation.next.op_id == f"r#{LEAST + 2}"
    assert not continuation.has_turned


def test_an_attempt_that_was_given_up_takes_no_offered_step(engine, caplog):
    """It writes nothing: neither its outcome nor a claim."""
    run = begin(engine, wide, WIDTH)
    continuation = take_message(engine, run, most=0)
    held = continuation.begin()
    with engine.store.begin() as tx:
        tx.execute(sa.update(schema.steps).where(schema.steps.c.claim == held.claim).values(claim="another"))

    run_claimed(engine, held, StepBody(noop), partial(record_in_place, engine, continuation))

    assert continuation.next is None
    assert offered(engine, run)[0] == f"r#{LEAST + 2}"
    assert "its outcome is not recorded" in caplog.text


def test_a_failed_transaction_leaves_the_outcome_to_one_of_its_own(engine, monkeypatch):
    """The step's result is recorded, and the process goes on by itself."""
    run = begin(engine, wide, WIDTH)
    continuation = take_message(engine, run, most=0)
    held = continuation.begin()
    monkeypatch.setattr(offers, "commit_outcome_and_claim_next", lambda *_, **__: 1 / 0)

    run_claimed(engine, held, StepBody(noop), partial(record_in_place, engine, continuation))
    go_on(engine, continuation, run.id)

    assert continuation.next.op_id == f"r#{LEAST + 2}"
    assert [event.op_id for event in run.events() if event.kind == "step_completed"] == ["r#1", held.op_id]


@pytest.fixture
def unreadable(engine: Durable, monkeypatch: pytest.MonkeyPatch) -> str:
    """An offered step, the first that is taken after the next, whose arguments the engine lacks the key to."""
    op_id, unseal = f"r#{LEAST + 2}", engine.store.vault.unseal

    def without_key(run_id: str, place: str, text: str | None) -> str | None:
        if place == op_id:
            raise DecryptionError("new", ("old",), run_id)
        return unseal(run_id, place, text)

    monkeypatch.setattr(engine.store.vault, "unseal", without_key)
    return op_id


def status_of(engine: Durable, run: Run[Any], op_id: str) -> str:
    """The status of a step that has not ended."""
    mine = (schema.steps.c.run_id == run.id, schema.steps.c.op_id == op_id)
    with engine.store.read() as tx:
        return str(tx.execute(sa.select(schema.steps.c.status).where(*mine)).scalar_one())


def test_an_offered_step_that_cannot_be_read_is_released_when_the_database_is_back(engine, unreadable, caplog):
    """The connection breaks while it is left to another process: it is left there all the same."""
    run = begin(engine, wide, WIDTH)
    continuation = take_message(engine, run, most=0)
    held = continuation.begin()
    engine.store.now()

    # On SQLite, the transaction after the one of the outcome.
    with cut_off(engine, "UPDATE durable_steps SET attempt", transaction=2) as cut:
        run_claimed(engine, held, StepBody(noop), partial(record_in_place, engine, continuation))

    assert len(cut) == 1
    assert continuation.next is None
    assert status_of(engine, run, unreadable) == "pending"
    assert not engine.running
    assert "its outcome is not recorded" not in caplog.text


def test_an_outcome_is_recorded_once_when_the_next_step_cannot_be_released(engine, unreadable, caplog):
    """The process does not run that step, so its housekeeping gives it up; the outcome counts as recorded."""
    if engine.store.dialect == "sqlite":
        pytest.skip("it refuses no such statement")
    run = begin(engine, wide, WIDTH)
    continuation = take_message(engine, run, most=0)
    held = continuation.begin()

    with refused(engine, "UPDATE durable_steps SET attempt", "too long") as hit:
        run_claimed(engine, held, StepBody(noop), partial(record_in_place, engine, continuation))

    assert len(hit) == 1
    assert "its outcome is not recorded" not in caplog.text
    assert continuation.next is None
    assert not engine.running
    later(engine, 10**6)
    sweep.release_forgotten(engine)
    assert status_of(engine, run, unreadable) == "pending"


def test_when_its_time_is_over_the_process_sends_the_next_step(engine):
    """So as many messages are on their way as before."""
    run, clock = begin(engine, wide, WIDTH), Time()
    continuation = Continuation(engine, "celery", has_offers=True, clock=clock)
    attempt(engine, registry.steps["offers.noop"], Address(run.id, "r#1", 1), None)
    clock.now = 61
    go_on(engine, continuation, run.id)

    assert continuation.next is None
    assert sent(engine, run) == LEAST  # one has run, and one more is sent
    assert offered(engine, run) == [f"r#{number}" for number in range(LEAST + 2, WIDTH + 1)]


def test_a_message_that_comes_twice_makes_its_process_take_offered_steps(engine):
    """The process that had it may have died: its part of the work goes on."""
    run = begin(engine, wide, WIDTH)
    attempt(engine, registry.steps["offers.noop"], Address(run.id, "r#1", 1), None)

    take_message(engine, run)

    assert offered(engine, run) == []


def test_an_offered_step_that_was_released_is_sent(beating):
    """The process is stopped before it begins: the sweep sends the step at once."""
    run = begin(beating, wide, WIDTH)
    held = take_message(beating, run, most=0).next
    release(beating, held, has_begun=False)

    sweep.sweep(beating)

    assert held.op_id not in offered(beating, run)
    assert sent(beating, run) == LEAST


def later(engine: Durable, seconds: float) -> None:
    """Let the engine's clock be *seconds* ahead."""
    engine.store.now()
    offset, measured = engine.store._clock
    engine.store._clock = (offset + int(seconds * 1_000_000), measured + 3600)


def test_the_sweep_sends_offered_steps_when_their_queue_is_empty(beating, monkeypatch):
    """While messages wait there, the processes that take them take the offered steps too."""
    run, waiting = begin(beating, wide, WIDTH), [5]
    monkeypatch.setattr(beating.dispatch.broker, "length", lambda queue: waiting[0])
    sweep.sweep(beating)
    later(beating, 6)
    sweep.sweep(beating)
    assert len(offered(beating, run)) == WIDTH - LEAST

    waiting[0] = 0
    sweep.sweep(beating)

    assert offered(beating, run) == []
    assert sent(beating, run) == WIDTH


def test_a_cancelled_run_leaves_no_offered_step(engine):
    """Nothing of it runs any more."""
    run = begin(engine, wide, WIDTH)
    run.cancel()
    drive(engine, run.id)

    assert run.status == "cancelled"
    take_message(engine, run)
    assert ran == []
    with engine.store.read() as tx:
        assert not tx.execute(sa.select(schema.steps).where(schema.steps.c.run_id == run.id)).all()


@pytest.mark.parametrize(("made", "steps"), [(urgent, WIDTH), (unfit, 2 * WIDTH)], ids=["priority", "unfit"])
def test_what_needs_a_message_is_sent(engine, made, steps):
    """Celery's limits and priorities are those of messages, and another queue has other workers."""
    run = begin(engine, made, WIDTH)

    assert (sent(engine, run), offered(engine, run)) == (steps, [])


def test_message_by_message_every_step_is_sent(database):
    """With ``continuation=0``."""
    with more_engines(database) as make:
        plain = make()
        run = begin(plain, wide, WIDTH)
        assert (sent(plain, run), offered(plain, run)) == (WIDTH, [])


@pytest.mark.parametrize(("pool", "most"), [("threads", WIDTH), ("prefork", LEAST)])
def test_processes_that_run_many_steps_at_once_get_a_message_for_each(beating, pool, most):
    """How many threads a worker has is not known, and none may wait while a step does."""
    with beating.store.begin() as tx:
        tx.execute(sa.update(schema.workers).values(pool=pool, queues='["celery"]'))

    assert sent(beating, begin(beating, wide, WIDTH)) == most


@pytest.mark.parametrize("analyzed", [False, True])
def test_a_claim_reads_one_call_of_a_run_that_has_many(engine, analyzed):
    """On PostgreSQL, whatever it knows of the tables: a wide run would take quadratic time otherwise."""
    if engine.store.dialect != "postgresql":
        pytest.skip("elsewhere a claim reads by the key")
    run = wide.start(2_000)
    drive(engine, run.id)
    if analyzed:
        with engine.store.read() as tx:
            tx.exec_driver_sql("ANALYZE")
    values = {"run": run.id, "queue": "celery", "names": "{offers.noop}", "by": "claim", "worker_id": "worker"}
    values |= {"message_id": None, "semantics": "at_least_once", "timeout": None}
    statement = offers._claim_next(engine.store.sql_now_text, is_synced=True)._statement
    with engine.store.begin() as tx:
        asked = sa.text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
        plan = tx.execute(asked, values).scalar_one()
        tx.get_transaction().rollback()
    assert rows_read(plan[0]["Plan"], "durable_events") == 1
    run.cancel()
    settle(engine, run)


def rows_read(node: dict[str, Any], table: str) -> int:
    """How many rows of a table a plan has read."""
    own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    mine = own if node.get("Relation Name") == table else 0
    return int(mine) + sum(rows_read(each, table) for each in node.get("Plans", []))
