"""Attributes on every database: set by workflows and by steps, kept beside the log, and found again."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, settle

from durable import (
    Durable,
    NonDeterministicCall,
    Run,
    RunFailed,
    RunNotFound,
    create_hook,
    current,
    events,
    get_run,
    get_step_metadata,
    get_workflow_metadata,
    registry,
    resume_hook,
    set_attributes,
    sleep,
    step,
    workflow,
)
from durable.attempts.attempt import attempt
from durable.attempts.claim import Address
from durable.attempts.outcome import give_up
from durable.attributes import COUNT_LIMIT, merged
from durable.client import describe
from durable.store import claimed_attempts, run_log
from durable.store.outbox import SendTimes
from durable.store.schema import attributes, inbox
from durable.turns.drive import drive

pytestmark = all_databases()

#: What steps saw, by the run that they did it for.
seen: dict[str, list[Any]] = {}


def see(what: Any) -> int:
    """Note it for this run; how often there was something to note."""
    mine = seen.setdefault(get_step_metadata().run_id, [])
    mine.append(what)
    return len(mine)


def as_logged(run: Run[Any]) -> dict[str, str]:
    """What the run's log makes of its attributes."""
    return merged({}, *(e.attributes for e in run.events() if isinstance(e, events.AttributesSet)))


@step
def label(change: dict[str, str | None]) -> None:
    set_attributes(**change)


@workflow
async def labelled(*changes: dict[str, str | None]) -> None:
    """Set attributes in turn: the first from the workflow, the next from a step, and so on."""
    for n, change in enumerate(changes):
        if n % 2 == 0:
            set_attributes(**change)
        else:
            await label(change)


def test_c75_changes_are_merged(engine):
    """Overwritten, unset and added, by workflow and steps in the order of the log; and kept after the end."""
    run = engine.start(
        labelled,
        {"customer": "acme", "phase": "new", "draft": "yes"},
        {"phase": "paid", "paid_by": "card"},
        {"draft": None, "phase": "packed", "never": None},
        {"paid_by": None, "Customer": "ACME", "größe": "XL 📦"},
    )
    assert run.attributes == {}
    settle(engine, run)

    expected = {"customer": "acme", "phase": "packed", "Customer": "ACME", "größe": "XL 📦"}
    assert run.status == "completed"
    assert run.attributes == as_logged(run) == expected
    assert describe.describe(engine, run.id)["attributes"] == expected


def test_c75_what_is_set_just_before_the_end_lands(engine):
    """Nothing is awaited after it."""
    run = engine.start(labelled, {"phase": "done"})
    settle(engine, run)

    assert run.attributes == {"phase": "done"}
    assert kinds(run) == ["run_created", "run_started", "attributes_set", "run_completed"]


@step
def looks_while_it_runs() -> None:
    engine, run = current.current_engine(), get_run(get_step_metadata().run_id)
    set_attributes(phase="working")
    see(messages(engine))
    drive(engine, run.id)
    see(run.attributes)
    set_attributes(phase="nearly")


def messages(engine: Durable) -> list[str]:
    """The names of the messages in the broker, which are taken out."""
    names = []
    with engine.celery.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        while len(queue):
            message = queue.get(block=False)
            names.append(message.headers["task"])
            message.ack()
        queue.close()
    return names


@workflow
async def works() -> None:
    await looks_while_it_runs()
    set_attributes(phase="done")


def test_c75_from_a_step_at_once(engine):
    """A turn is sent by the call itself, and others see the change while the step goes on."""
    run = engine.start(works)
    drive(engine, run.id)
    messages(engine)
    settle(engine, run)

    assert seen[run.id] == [["durable.drive"], {"phase": "working"}]
    assert run.attributes == as_logged(run) == {"phase": "done"}


@workflow
async def labels_in_parallel(width: int) -> None:
    await asyncio.gather(*(label({f"part{n}": "done"}) for n in range(width)))


def test_c75_in_parallel_with_disjoint_names_all_land(engine):
    """Eight steps that run at once."""
    run = engine.start(labels_in_parallel, 8)
    drive(engine, run.id)
    addresses = [Address(run.id, e.op_id, 1) for e in run.events() if isinstance(e, events.StepCreated)]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda address: attempt(engine, registry.steps[label.name], address, None), addresses))
    settle(engine, run)

    assert run.attributes == {f"part{n}": "done" for n in range(8)}


@step(max_retries=1, retry_backoff=0)
def fails_and_labels() -> None:
    attempts = see("try")
    set_attributes(**{f"try{attempts}": "seen"})
    raise ConnectionError("no luck")


@workflow
async def fails_at_last() -> None:
    set_attributes(phase="trying")
    await fails_and_labels()


def test_c75_kept_when_the_run_fails(engine):
    """What a failed attempt has set stays too."""
    run = engine.start(fails_at_last)
    settle(engine, run)

    assert run.status == "failed"
    assert run.attributes == {"phase": "trying", "try1": "seen", "try2": "seen"}


@workflow
async def waits() -> None:
    set_attributes(phase="waiting", customer="acme")
    try:
        await sleep("1h")
    finally:
        set_attributes(phase="given up")


def test_c75_kept_when_the_run_is_cancelled(engine):
    """With what its cleanup has set."""
    run = engine.start(waits)
    settle(engine, run)
    run.cancel()
    settle(engine, run)

    assert run.status == "cancelled"
    assert run.attributes == {"phase": "given up", "customer": "acme"}


# Attempts that were given up, runs that have ended


@step(retry_backoff=0)
def loses_its_claim() -> int:
    if see("try") == 1:
        metadata, engine = get_step_metadata(), current.current_engine()
        with engine.store.read() as tx:
            held = claimed_attempts.find(tx, metadata.run_id, metadata.step_id)
        assert held is not None
        give_up(engine, held)
        set_attributes(phase="late")
    return get_step_metadata().attempt


@workflow
async def given_up() -> int:
    return await loses_its_claim()


def test_an_attempt_that_was_given_up_sets_nothing(engine):
    """As its result is not recorded, neither are its attributes."""
    run = engine.start(given_up)
    settle(engine, run)

    assert run.result() == 2
    assert run.attributes == {}
    assert "attributes_set" not in kinds(run)


@step
def outlives_its_run() -> None:
    engine, run = current.current_engine(), get_run(get_step_metadata().run_id)
    set_attributes(phase="working")
    run.cancel()
    drive(engine, run.id)
    set_attributes(phase="late")


@workflow
async def ends_first() -> None:
    await outlives_its_run()


def test_after_the_run_has_ended_nothing_changes(engine):
    """A step that runs on may call, and what it sets then is dropped."""
    run = engine.start(ends_first)
    settle(engine, run)

    assert run.status == "cancelled"
    assert run.attributes == as_logged(run) == {"phase": "working"}
    with engine.store.read() as tx:
        assert tx.execute(sa.select(inbox).where(inbox.c.run_id == run.id)).all() == []


def test_what_was_committed_before_the_end_is_not_lost(engine):
    """A step's change that comes in while the run's last turn thinks is in the log before the end."""
    run = engine.start(labelled, {"phase": "workflow"})
    posted: list[str] = []

    def post(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "LEFT OUTER JOIN durable_inbox" in statement and not posted:
            posted.append(statement)
            with engine.store.begin() as tx:
                news = events.AttributesSet(at=engine.now(), op_id="r#1", attributes={"by": "step"})
                run_log.post(tx, run.id, news, SendTimes(0, None))

    sa.event.listen(engine.store.engine, "after_cursor_execute", post)
    drive(engine, run.id)
    sa.event.remove(engine.store.engine, "after_cursor_execute", post)

    assert posted
    assert run.attributes == as_logged(run) == {"phase": "workflow", "by": "step"}
    assert kinds(run)[-1] == "run_completed"


# Limits


@step(max_retries=0)
def overfills() -> str:
    set_attributes(**{f"a{n}": "x" for n in range(COUNT_LIMIT)})
    try:
        set_attributes(one_more="x")
    except ValueError as error:
        return str(error)
    return "no error"


@step(max_retries=0)
def too_long() -> None:
    set_attributes(note="x" * 257)


@workflow
async def passes_limits(which: str) -> str:
    if which == "count":
        return await overfills()
    await too_long()
    return "no error"


def test_c75_a_step_is_told_of_the_limit_at_its_call(engine):
    """Also when no turn has yet taken in what it has set before."""
    run = engine.start(passes_limits, "count")
    settle(engine, run)

    assert "['one_more'] the run would have 65 attributes; the limit is 64" in run.result()
    assert len(run.attributes) == COUNT_LIMIT


def test_c75_a_value_that_is_too_long_fails_the_step_that_does_not_catch_it(engine):
    """With a message that names the attribute."""
    run = engine.start(passes_limits, "length")
    settle(engine, run)

    with pytest.raises(RunFailed, match="'note' has 257 bytes; the limit is 256"):
        run.result()
    assert run.attributes == {}


def test_c75_the_longest_that_fit_are_stored(engine):
    """256 characters of four bytes in a name, 256 bytes in a value, 64 of them."""
    longest = {f"{n:02}" + "📦" * 254: "é" * 128 for n in range(COUNT_LIMIT)}
    run = engine.start(labelled, longest)
    settle(engine, run)

    assert run.attributes == longest


# Found again


def test_runs_are_found_by_their_attributes(engine):
    """Each has to match exactly, beside status and name; the newest run comes first."""
    key = secrets.token_hex(4)
    both = [engine.start(labelled, {"customer": key, "phase": "paid"}) for _ in range(2)]
    unpaid = engine.start(labelled, {"customer": key, "phase": "new"})
    other_case = engine.start(labelled, {"customer": key.upper() + "X", "Customer": key, "phase": "paid"})
    settle(engine, *both, unpaid, other_case)

    def found(**wanted: str) -> list[str]:
        return [row["id"] for row in describe.list_runs(engine, attributes=wanted)]

    assert found(customer=key) == [unpaid.id, both[1].id, both[0].id]
    assert found(customer=key, phase="paid") == [both[1].id, both[0].id]
    assert found(Customer=key) == [other_case.id]
    assert found(customer=key, phase="sent") == found(customer=key, never="set") == []
    assert describe.list_runs(engine, attributes={"customer": key}, status="failed") == []


def test_they_are_asked_of_a_run_that_is_there(engine):
    """An unknown run has none to tell."""
    with pytest.raises(RunNotFound):
        _ = engine.get_run("nobody").attributes


@workflow
async def reads_its_own() -> str:
    try:
        return str(Run(get_workflow_metadata().run_id).attributes)
    except NonDeterministicCall as error:
        return str(error)


def test_a_workflow_does_not_read_them(engine):
    """They are in the database, which no replay could read again as it was."""
    run = engine.start(reads_its_own)
    settle(engine, run)

    assert "Run.attributes was called in a workflow body" in run.result()


# Turns


def test_a_turn_that_changes_none_reads_none(engine):
    """Runs without attributes pay nothing for those of others."""
    run = engine.start(labelled, {})
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    sa.event.listen(engine.store.engine, "before_cursor_execute", note)
    drive(engine, run.id)
    sa.event.remove(engine.store.engine, "before_cursor_execute", note)

    assert run.status == "completed"
    assert not [statement for statement in said if attributes.name in statement]


@workflow
async def counts_after_steps() -> list[str]:
    """Fill the run from a step, look in the workflow whether there is room, and wait between."""
    told = []
    await label({f"a{n}": "x" for n in range(COUNT_LIMIT)})
    for n in range(2):
        try:
            set_attributes(**{f"more{n}": "x"})
            told.append("room")
        except ValueError:
            told.append("full")
        await create_hook(token=f"{get_workflow_metadata().run_id}:{n}")
        await label({"a0": None})
    return told


def test_c75_the_workflow_counts_what_steps_have_set(engine):
    """Turn by turn, each from the log's beginning, it is told the same."""
    run = engine.start(counts_after_steps)
    for n in range(2):
        settle(engine, run)
        resume_hook(f"{run.id}:{n}", None)
    settle(engine, run)

    assert run.result() == ["full", "room"]
    assert "more1" in run.attributes
    assert len(run.attributes) == COUNT_LIMIT


# Given at the start


@workflow(name="run_attributes.given")
async def relabelled(phase: str | None) -> None:
    if phase is not None:
        set_attributes(phase=phase)


def test_attributes_given_at_start_find_the_run_before_its_first_turn(engine):
    """They are there once ``start`` has returned, come into the log with the first turn, and stay."""
    customer = secrets.token_hex(4)
    run = relabelled.with_options(attributes={"customer": customer, "phase": "new", "note": None}).start(None)
    expected = {"customer": customer, "phase": "new"}

    assert run.attributes == expected
    listed = describe.list_runs(engine, attributes={"customer": customer}, limit=10)
    assert [each["id"] for each in listed] == [run.id]
    settle(engine, run)

    assert kinds(run) == ["run_created", "run_started", "attributes_set", "run_completed"]
    assert run.attributes == as_logged(run) == expected


def test_what_the_workflow_sets_replaces_what_it_was_given(engine):
    """In the log, the attributes of the start come first."""
    run = relabelled.with_options(attributes={"customer": "acme", "phase": "new"}).start("paid")
    settle(engine, run)

    assert run.attributes == as_logged(run) == {"customer": "acme", "phase": "paid"}


def test_a_start_that_finds_its_key_used_changes_no_attributes(engine):
    """The run that exists keeps its own."""
    key = secrets.token_hex(4)
    first = relabelled.with_options(idempotency_key=key, attributes={"a": "1"}).start(None)
    again = relabelled.with_options(idempotency_key=key, attributes={"a": "2", "b": "3"}).start(None)

    assert again == first
    assert first.attributes == {"a": "1"}


@pytest.mark.parametrize("given", [{"customer": 1}, {"": "x"}, {"customer": "x" * 300}])
def test_attributes_that_no_run_may_have_start_none(engine, given):
    """As ``set_attributes`` refuses them; nothing is written."""
    before = len(describe.list_runs(engine, limit=100))
    with pytest.raises((TypeError, ValueError), match="attribute"):
        relabelled.with_options(attributes=given).start(None)

    assert len(describe.list_runs(engine, limit=100)) == before
