"""A worker that goes on with its run: what is written, what is sent, and what sends it back through the broker."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, settle
from trouble import cut_off, refused, unacknowledged

from durable import RunFailed, create_hook, get_workflow_metadata, registry, resume_hook, sleep, step, workflow
from durable.attempts.attempt import StepBody, attempt, run_claimed
from durable.attempts.claim import Address, claim
from durable.attempts.outcome import MOST_INTERRUPTIONS, release
from durable.client.run import post_cancel
from durable.duration import to_datetime
from durable.engine.process import identify
from durable.store.schema import inbox, runs, steps, workers
from durable.turns.conclude import conclude
from durable.turns.continuation import Continuation
from durable.turns.drive import drive


@step(name="continuation.adds")
def adds(n: int) -> int:
    return n + 1


@step(name="continuation.fails", max_retries=0)
def fails() -> None:
    raise ValueError("no")


@step(name="continuation.limited", time_limit=60)
def limited(n: int) -> int:
    return n + 1


@step(name="continuation.urgent", priority=5)
def urgent(n: int) -> int:
    return n + 1


@step(name="continuation.single", max_retries=0)
def single(n: int) -> int:
    return n + 1


@step(name="continuation.tells")
def tells() -> str:
    return get_workflow_metadata().started_at.isoformat()


@step(name="continuation.elsewhere", queue="elsewhere")
def elsewhere(n: int) -> int:
    return n + 1


@step(name="continuation.once", semantics="at_most_once")
def once(n: int) -> int:
    return n + 1


@workflow(name="continuation.counts")
async def counts(to: int) -> int:
    n = 0
    while n < to:
        n = await adds(n)
    return n


@workflow(name="continuation.mixes")
async def mixes(kind: str) -> int:
    other = {"limited": limited, "elsewhere": elsewhere, "once": once, "urgent": urgent}[kind]
    return await adds(await other(await adds(0)))


@workflow(name="continuation.recovers")
async def recovers() -> str:
    try:
        await fails()
    except Exception as error:
        return f"{type(error).__name__} {await adds(1)}"
    return "never"


@workflow(name="continuation.pairs")
async def pairs() -> list[int]:
    return list(await asyncio.gather(adds(1), adds(2)))


@workflow(name="continuation.listens")
async def listens() -> list[Any]:
    hook = create_hook(token="continuation")
    return [await adds(1), await adds(2), await hook]


@pytest.fixture
def manner() -> dict[str, Any]:
    """In place on every database."""
    return {"continuation": "60s"}


class Time:
    """A clock that moves by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def begun(engine, run, clock=None):
    """Take a run's first turn; returns its in-place continuation."""
    continuation = Continuation(engine, "celery", clock=clock or Time())
    drive(engine, run.id, continuation=continuation)
    return continuation


def turns_of(engine, run):
    """How many turns of the run are committed."""
    with engine.store.read() as tx:
        return tx.execute(sa.select(runs.c.turn).where(runs.c.id == run.id)).scalar_one()


def row_of_step(engine, run):
    """The row of the run's only step that has not ended."""
    with engine.store.read() as tx:
        return dict(tx.execute(sa.select(steps).where(steps.c.run_id == run.id)).mappings().one())


def walk(engine, continuation, most=1000):
    """Run the claimed attempts one after the other; returns their number."""
    for number in range(most):
        held = continuation.begin()
        if held is None:
            return number
        step = registry.steps[held.name]
        run_claimed(engine, held, StepBody(step), partial(conclude, engine, continuation))
        if not continuation.has_turned:
            drive(engine, held.run_id, continuation=continuation)
    return most


@all_databases()
def test_c101_a_run_of_steps_is_walked_through_without_a_message(engine):
    """The log is that of the plain way, and nothing is left to send or to run."""
    run = engine.start(counts, 4)

    assert walk(engine, begun(engine, run)) == 4

    assert run.result(timeout=0) == 4
    each = ["step_created", "step_completed"]
    assert kinds(run) == ["run_created", "run_started", *each * 4, "run_completed"]
    with engine.store.read() as tx:
        for table in (steps, inbox):
            assert tx.execute(sa.select(table).where(table.c.run_id == run.id)).all() == []


@all_databases()
def test_a_step_in_place_is_one_transaction(engine):
    """Its outcome, the turn, and the next step's claim are committed together; nothing is read."""
    run = engine.start(counts, 5)
    continuation = begun(engine, run)
    engine.store.now()
    commits, statements = itertools.count(), []
    sa.event.listen(engine.store.engine, "commit", lambda _: next(commits))
    sa.event.listen(engine.store.engine, "before_cursor_execute", lambda c, cu, text, *_: statements.append(text))

    walk(engine, continuation, most=1)

    written = [text.split()[0] for text in statements if not text.startswith(("BEGIN", "PRAGMA"))]
    if engine.store.dialect == "postgresql":
        assert (written, next(commits)) == (["WITH"], 0)  # a transaction by itself
    else:
        assert (written, next(commits)) == (["UPDATE", "UPDATE", "INSERT"], 1)


@all_databases()
@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on with one", "sends all"])
def test_a_turn_that_asks_for_a_few_steps_is_one_transaction(engine, goes_on):
    """Their rows, the claim of the one that this process runs, and the log are committed together."""
    run = engine.start(pairs)
    continuation = Continuation(engine, "celery", clock=Time()) if goes_on else None
    statements: list[str] = []
    engine.store.now()
    sa.event.listen(engine.store.engine, "before_cursor_execute", lambda c, cu, text, *_: statements.append(text))

    drive(engine, run.id, continuation=continuation)

    tables = ("durable_runs", "durable_events", "durable_steps", "durable_inbox")
    written = [text.split()[0] for text in statements if text.split()[0] != "SELECT" and any(t in text for t in tables)]
    if engine.store.dialect == "postgresql":
        assert written == ["WITH"]
    else:
        assert sorted(written) == sorted(["UPDATE", "DELETE", "INSERT", "INSERT"] + ["INSERT"] * goes_on)
    with engine.store.read() as tx:
        query = sa.select(steps.c.status).where(steps.c.run_id == run.id).order_by(steps.c.op_id)
        assert list(tx.execute(query).scalars()) == ["claimed" if goes_on else "pending", "pending"]
    assert kinds(run) == ["run_created", "run_started", "step_created", "step_created"]


@all_databases()
def test_a_step_that_begins_in_the_row_of_another_takes_nothing_of_it_over(engine):
    """Its row has in each column what the row of a step has that begins in a row of its own."""
    run = engine.start(counts, 3)
    continuation = begun(engine, run)
    fresh = row_of_step(engine, run)
    left = {"attempt": 1, "not_before": 1, "started_at": 1, "claimed_at": 1, "message_id": "one", "interruptions": 4}
    left |= {"semantics": "transactional", "deadline_at": 1, "heartbeat": "1", "heartbeat_at": 1, "queue": "other"}
    left |= {"sent_at": 1, "sends": 1}
    # Of a claimed attempt that the workflow has not cancelled and no pause holds, these are always the same.
    same = {"run_id", "status", "worker_id", "cancelled", "doubt", "next_send_at", "offered_seq", "paused_at"}
    assert set(fresh) == {*left, *same, "op_id", "name", "claim"}
    with engine.store.begin() as tx:
        tx.execute(sa.update(steps).where(steps.c.run_id == run.id).values(left))

    walk(engine, continuation, most=1)

    begins = continuation.next
    own = {"op_id": "r#2", "claim": begins.claim, "started_at": begins.started_at, "claimed_at": begins.claimed_at}
    assert row_of_step(engine, run) == fresh | own


@all_databases()
def test_interruptions_of_a_step_do_not_count_for_the_next(engine):
    """A step that was interrupted ends in place: the next one has as many interruptions left as any."""
    run = engine.start(counts, 2)
    drive(engine, run.id)
    continuation = Continuation(engine, "celery", clock=Time())
    concluded = partial(conclude, engine, continuation)
    held = claim(engine, adds, Address(run.id, "r#1", 1), None)
    release(engine, held, has_begun=True)
    assert row_of_step(engine, run)["interruptions"] == 1

    attempt(engine, adds, Address(run.id, "r#1", 1), None, conclude=concluded)

    assert continuation.has_turned
    assert row_of_step(engine, run)["op_id"] == "r#2"
    assert row_of_step(engine, run)["interruptions"] is None
    for _ in range(MOST_INTERRUPTIONS - 1):
        held = continuation.begin() or claim(engine, adds, Address(run.id, "r#2", 1), None)
        release(engine, held, has_begun=True)
    settle(engine, run)
    assert run.result(timeout=0) == 2


def test_a_process_that_dies_before_the_step_runs_leaves_a_claim_that_is_found(engine):
    """The row is born claimed, by this process: the sweep gives it up as any other."""
    run = engine.start(counts, 2)
    continuation = begun(engine, run)

    with engine.store.read() as tx:
        row = tx.execute(sa.select(steps).where(steps.c.run_id == run.id)).one()
    assert (row.status, row.claim, row.worker_id) == ("claimed", continuation.next.claim, engine.process_id)
    assert row.next_send_at is None


@all_databases()
def test_a_message_that_comes_again_gives_up_what_its_dead_process_had_gone_on_to(engine):
    """The carrying message is delivered again when its process dies; the step in place is the second one."""
    run = engine.start(counts, 3)
    walk(engine, begun(engine, run), most=1)
    with engine.store.begin() as tx:
        tx.execute(sa.update(steps).where(steps.c.run_id == run.id).values(worker_id="dead"))
        here = identify()
        gone = {"id": "dead", "host": here.host, "boot_id": here.boot_id, "pid": 2**22 - 1, "pid_started": 1}
        tx.execute(sa.insert(workers), gone | {"started_at": 0, "beat_at": engine.now(), "names": "[]"})

    assert not attempt(engine, adds, Address(run.id, "r#1", 1), None)

    with engine.store.read() as tx:
        row = tx.execute(sa.select(steps).where(steps.c.run_id == run.id)).one()
    assert (row.op_id, row.status, row.attempt) == ("r#2", "pending", 2)
    settle(engine, run)
    assert run.result(timeout=0) == 3


def test_the_first_step_is_told_the_recorded_start_of_its_run(engine):
    """It runs right after the turn that records it, and has not read it."""

    @workflow(name="continuation.asks")
    async def asks() -> str:
        return await tells()

    run = engine.start(asks)
    walk(engine, begun(engine, run))

    (started,) = [event for event in run.events() if event.kind == "run_started"]
    assert run.result(timeout=0) == to_datetime(started.at).isoformat()


@pytest.mark.parametrize(("kind", "number"), [(single, 1), (adds, 2)], ids=["its only attempt", "its second attempt"])
def test_an_outcome_goes_through_the_inbox_where_the_turn_might_cost_it(engine, kind, number):
    """A turn that kills its process takes an outcome with it that is not recorded: that happens to no step twice."""

    @workflow(name=f"continuation.risks_{number}")
    async def risks() -> int:
        return await kind(1)

    run = engine.start(risks)
    drive(engine, run.id)
    with engine.store.begin() as tx:
        tx.execute(sa.update(steps).where(steps.c.run_id == run.id).values(attempt=number))
    continuation = Continuation(engine, "celery", clock=Time())

    attempt(engine, kind, Address(run.id, "r#1", number), None, conclude=partial(conclude, engine, continuation))

    assert not continuation.has_turned
    assert [event.kind for event in run.events()][-1] == "step_created"
    settle(engine, run)
    assert run.result(timeout=0) == 2


def test_when_the_time_is_up_the_next_step_is_sent(engine):
    """Looked at before each start: other runs get their turn."""
    clock = Time()
    run = engine.start(counts, 4)
    continuation = begun(engine, run, clock)
    walk(engine, continuation, most=2)
    clock.now = engine.settings.continuation / 1e6 + 1

    walk(engine, continuation)

    assert continuation.next is None
    with engine.store.read() as tx:
        row = tx.execute(sa.select(steps).where(steps.c.run_id == run.id)).one()
    assert (row.status, row.claim) == ("pending", None)
    assert row.sent_at is not None
    settle(engine, run)
    assert run.result(timeout=0) == 4


def test_a_child_that_ends_soon_goes_on_for_longer(engine):
    """A process with ``least_continuation`` goes on for that long, however short the setting is."""
    clock = Time()
    engine.least_continuation = engine.settings.continuation + 2_000_000
    run = engine.start(counts, 4)
    continuation = begun(engine, run, clock)
    walk(engine, continuation, most=2)
    clock.now = engine.settings.continuation / 1e6 + 1

    walk(engine, continuation)

    assert run.result(timeout=0) == 4


@pytest.mark.parametrize("kind", ["limited", "elsewhere", "once", "urgent"])
def test_a_step_that_is_not_for_this_worker_is_sent(engine, kind):
    """One with a limit of Celery's, of another queue, that is to run at most once, or with a priority."""
    run = engine.start(mixes, kind)

    assert walk(engine, begun(engine, run)) == 1

    settle(engine, run)
    assert run.result(timeout=0) == 3


@all_databases()
def test_a_failed_step_goes_on_too(engine):
    """Its error reaches the workflow in the same turn that records it."""
    run = engine.start(recovers)

    assert walk(engine, begun(engine, run)) == 2

    assert run.result(timeout=0) == "ValueError 2"


def test_of_parallel_steps_the_first_begins_here_and_the_others_are_sent(engine):
    """The outcome of each is recorded in its turn, under the lease of the run's turns."""
    run = engine.start(pairs)
    continuation = begun(engine, run)

    held = continuation.begin()
    assert held.op_id == "r#1"
    run_claimed(engine, held, StepBody(adds), partial(conclude, engine, continuation))
    assert continuation.has_turned
    attempt(engine, adds, Address(run.id, "r#2", 1), None, conclude=partial(conclude, engine, continuation))
    assert run.result(timeout=0) == [2, 3]
    assert turns_of(engine, run) == 3


@all_databases()
def test_news_that_came_meanwhile_are_not_passed_over(engine):
    """A turn that has not read the inbox refuses itself while something is in it; an ordinary one follows."""
    run = engine.start(listens)
    continuation = begun(engine, run)
    resume_hook("continuation", "news")

    assert walk(engine, continuation) == 2

    assert run.result(timeout=0) == [2, 3, "news"]
    assert kinds(run).count("hook_received") == 1


#: How many wait for a lock.
_WAITING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'",
    "mysql": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
}


def until_a_transaction_waits(engine):
    """Return when a transaction waits for a lock of the database."""
    deadline, pause = time.monotonic() + 10, threading.Event()
    with engine.store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as tx:
        while not tx.execute(sa.text(_WAITING[engine.store.dialect])).scalar_one():
            assert time.monotonic() < deadline, "no transaction waits"
            # MariaDB refreshes this table only if nothing has read it for 0.1 s.
            pause.wait(0.15)


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_a_cancel_that_comes_while_the_end_is_written_is_not_passed_by(engine):
    """The end's one statement has begun before the cancel is committed, and cannot see it: its fence does."""
    run = engine.start(counts, 1)
    continuation = begun(engine, run)
    with ThreadPoolExecutor() as threads:
        with engine.store.begin() as tx:
            post_cancel(engine, tx, run.id, None)
            ending = threads.submit(walk, engine, continuation)
            until_a_transaction_waits(engine)
        ending.result(timeout=20)
    settle(engine, run)

    assert run.status == "cancelled"
    assert kinds(run).count("step_completed") == 1


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_a_turn_that_only_takes_news_in_leaves_its_replay_to_the_next(engine):
    """An outcome of several asks for nothing more: the turn after it reads the run and its news, and not the log."""
    run = engine.start(pairs)
    drive(engine, run.id)
    attempt(engine, adds, Address(run.id, "r#1", 1), None)
    drive(engine, run.id)
    attempt(engine, adds, Address(run.id, "r#2", 1), None)
    said: list[str] = []
    sa.event.listen(engine.store.engine, "before_cursor_execute", lambda c, cursor, text, *_: said.append(text))

    drive(engine, run.id)

    assert said
    assert not [text for text in said if text.startswith("SELECT") and "FROM durable_events" in text]
    assert run.result(timeout=0) == [2, 3]


@all_databases()
def test_an_attempt_that_was_given_up_concludes_nothing(engine):
    """Its claim is gone, so the turn that would record its outcome writes nothing."""
    run = engine.start(counts, 2)
    continuation = begun(engine, run)
    held = continuation.begin()
    with engine.store.begin() as tx:
        tx.execute(sa.update(steps).where(steps.c.run_id == run.id).values(claim="another's"))
    before = kinds(run)

    run_claimed(engine, held, StepBody(adds), partial(conclude, engine, continuation))

    assert not continuation.has_turned
    assert kinds(run) == before


@all_databases()
def test_a_turn_elsewhere_sends_the_outcome_through_the_inbox(engine):
    """Another process was here: the replay that this one keeps is not the run's any more."""
    run = engine.start(counts, 3)
    continuation = begun(engine, run)
    held = continuation.begin()
    with engine.store.begin() as tx:
        tx.execute(sa.update(runs).where(runs.c.id == run.id).values(turn=runs.c.turn + 1))

    run_claimed(engine, held, StepBody(adds), partial(conclude, engine, continuation))

    assert not continuation.has_turned
    settle(engine, run)
    assert run.result(timeout=0) == 3


@all_databases()
@pytest.mark.parametrize("number", range(1, 7))
def test_a_commit_that_was_not_acknowledged_costs_no_attempt(engine, number):
    """Whether it was applied is looked up by the claim of the step that was to come next."""
    with unacknowledged(engine, number) as lost:
        run = counts.start(3)
        for _ in range(number):
            with suppress(sa.exc.OperationalError):
                settle(engine, run)

    settle(engine, run)
    assert run.result(timeout=0) == 3
    each = ["step_created", "step_completed"]
    assert kinds(run) == ["run_created", "run_started", *each * 3, "run_completed"]
    assert lost or number > 5


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
@pytest.mark.parametrize("how", ["deadlock", "serialization"])
def test_what_the_database_undid_goes_through_the_inbox(engine, how):
    """The outcome is recorded by its claim, and an ordinary turn follows."""
    pass_on = (
        "WITH fenced AS (SELECT id FROM durable_runs WHERE durable_runs.id = %(run)s AND durable_runs.turn = %(turn)s"
        " AND durable_runs.turn_tried"
    )
    statement = pass_on if engine.store.dialect == "postgresql" else "UPDATE durable_steps SET op_id"
    with refused(engine, statement, how) as hit:
        run = engine.start(counts, 3)
        settle(engine, run)

    assert len(hit) == 1
    assert run.result(timeout=0) == 3
    assert kinds(run).count("step_completed") == 3


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_a_connection_that_is_cut_costs_no_attempt(engine):
    """Nothing was committed: the outcome goes through the inbox, on a new connection."""
    pass_on = (
        "WITH fenced AS (SELECT id FROM durable_runs WHERE durable_runs.id = %(run)s AND durable_runs.turn = %(turn)s"
        " AND durable_runs.turn_tried"
    )
    statement = pass_on if engine.store.dialect == "postgresql" else "UPDATE durable_steps SET op_id"
    run = engine.start(counts, 3)
    with cut_off(engine, statement) as cut:
        settle(engine, run)

    assert len(cut) == 1
    assert run.result(timeout=0) == 3
    assert "step_retrying" not in kinds(run)


def test_the_run_may_fail_on_the_way(engine):
    """Its end is committed with the last outcome."""

    @workflow(name="continuation.gives_up")
    async def gives_up() -> None:
        await fails()

    run = engine.start(gives_up)
    walk(engine, begun(engine, run))

    with pytest.raises(RunFailed, match="no"):
        run.result(timeout=0)
    assert kinds(run)[-2:] == ["step_failed", "run_failed"]


def test_a_sleep_ends_the_in_place_continuation(engine):
    """The process has nothing left to run, and publishes an ETA message as usual."""

    @workflow(name="continuation.rests")
    async def rests() -> int:
        n = await adds(1)
        await sleep("1h")
        return n

    run = engine.start(rests)
    assert walk(engine, begun(engine, run)) == 1
    assert kinds(run)[-1] == "wait_created"
