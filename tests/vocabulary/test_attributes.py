"""Attributes of a run, as its workflow and its log have them: set, merged, limited, replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from simulator import Simulator

from durable import NonDeterminismError, create_hook, events, get_workflow_metadata, set_attributes, sleep
from durable.attributes import COUNT_LIMIT
from durable.registry.decorators import step
from durable.registry.definitions import Workflow
from durable.store.attributes import matching
from durable.store.schema import runs

FULL = {f"a{n}": "x" for n in range(COUNT_LIMIT)}


@step(name="test_attributes.s")
def s(n: Any) -> Any:
    return n


@step(name="test_attributes.label")
def label(**change: str | None) -> None:
    set_attributes(**change)


def made(function: Callable[..., Any]) -> Workflow[..., Any]:
    return Workflow(function, name=f"test_attributes.{function.__name__}")


def play(function: Callable[..., Any], *args: Any) -> Simulator:
    """The first turn of *function* as a workflow."""
    return Simulator(made(function), args).turn()


def changes(sim: Simulator) -> list[Any]:
    return [e.attributes for e in sim.log if isinstance(e, events.AttributesSet)]


def test_c75_changes_are_merged():
    """A later change overwrites, None unsets, and what is not named stays."""

    async def flow():
        set_attributes(customer="acme", phase="new", draft="yes")
        await s(1)
        set_attributes(phase="paid", draft=None, never_there=None)

    sim = play(flow).complete("s")

    assert sim.attributes == {"customer": "acme", "phase": "paid"}
    assert len(changes(sim)) == 2


def test_a_change_of_nothing_is_none():
    """Without keywords nothing is recorded."""

    async def flow():
        set_attributes()
        await s(1)

    assert changes(play(flow)) == []


def test_attributes_shift_no_operation():
    """A call of a step has the same place with and without them."""

    async def flow():
        set_attributes(customer="7")
        await s(1)

    assert play(flow).open(events.StepCreated)[0].op_id == "r#1"


def test_c75_from_a_step():
    """A step's change is in the log where it came in, before the step's end."""

    async def flow():
        await label(phase="one", gone="x")
        await label(gone=None)

    sim = play(flow).work()

    assert sim.attributes == {"phase": "one"}
    assert [e.kind for e in sim.log if e.op_id == "r#1"] == ["step_created", "attributes_set", "step_completed"]


def test_c75_in_parallel_with_disjoint_names_all_land():
    """From tasks of the workflow, and from steps beside it."""

    async def part(n: int) -> None:
        set_attributes(**{f"task{n}": "begun"})
        await label(**{f"step{n}": "done"})

    async def flow():
        await asyncio.gather(*(part(n) for n in range(5)))

    sim = play(flow).work()

    assert sim.attributes == {f"task{n}": "begun" for n in range(5)} | {f"step{n}": "done" for n in range(5)}


def test_c75_what_is_set_last_of_all_lands():
    """A workflow may end in the turn in which it sets one, by returning or by raising."""

    async def flow(fails: bool):
        set_attributes(phase="over")
        if fails:
            raise ValueError("after all")

    assert play(flow, False).attributes == play(flow, True).attributes == {"phase": "over"}


def test_c75_cleanup_may_set_some():
    """After a cancel the workflow can still say how far it came."""

    async def flow():
        try:
            await sleep("1h")
        finally:
            set_attributes(phase="given up")

    sim = play(flow).cancel()

    assert sim.outcome.status == "cancelled"
    assert sim.attributes == {"phase": "given up"}


def test_parking_sets_none():
    """A workflow that is put away runs its finally, which changes nothing."""

    async def flow():
        try:
            await sleep("1h")
        finally:
            set_attributes(phase="over")

    sim = play(flow)
    sim.kept.park()

    assert sim.kept.take() == []
    assert sim.attributes == {}


# Limits


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"": "x"}, "1 to 256 characters"),
        ({"k" * 257: "x"}, "1 to 256 characters"),
        ({"k ": "x"}, "no spaces at its ends"),
        ({"a\0": "x"}, "no NUL"),
        ({"k": "v" * 257}, "'k' has 257 bytes; the limit is 256"),
        ({"k": "é" * 129}, "'k' has 258 bytes; the limit is 256"),
        ({"k": "\0"}, "without NUL"),
        ({"k": "\ud800"}, "lone surrogates"),
        ({"k": 1}, "must be a str or None, not 1"),
        ({"k": b"x"}, "must be a str or None"),
    ],
)
def test_c75_limits_of_names_and_values(change, why):
    """The call raises and says which attribute it is; nothing of it is recorded, and the workflow may go on."""

    async def flow():
        with pytest.raises((ValueError, TypeError), match=why):
            set_attributes(fine="x", **change)

    sim = play(flow)

    assert sim.outcome.status == "completed"
    assert changes(sim) == []


def test_c75_the_longest_that_fit():
    """256 characters of a name, 256 bytes of a value."""

    async def flow():
        set_attributes(**{"ä" * 256: "é" * 128})

    assert play(flow).attributes == {"ä" * 256: "é" * 128}


def test_c75_a_run_has_64_attributes():
    """The one too many is refused; once another is unset, there is room."""

    async def flow():
        set_attributes(**FULL)
        set_attributes(a0="overwritten", a1=None)
        set_attributes(more="x")
        try:
            set_attributes(too_many="x")
        except ValueError as error:
            return str(error)

    sim = play(flow)

    assert "['too_many'] the run would have 65 attributes; the limit is 64" in sim.result
    assert len(sim.attributes) == COUNT_LIMIT
    assert "too_many" not in sim.attributes


def test_c75_what_steps_have_set_counts():
    """The workflow is told at its own call, live and on every replay, that steps have filled the run."""

    async def flow():
        told = []
        await s(1)
        for n in range(2):
            try:
                set_attributes(**{f"more{n}": "x"})
                told.append("room")
            except ValueError:
                told.append("full")
            await s(2)
        return told

    sim = play(flow).label("s", {f"b{n}": "x" for n in range(COUNT_LIMIT)}).complete("s")
    sim.label("s", {"b0": None}).complete("s").complete("s")

    assert sim.result == ["full", "room"]


def test_within_a_turn_the_order_of_the_log_counts():
    """A step's change that came in with the news stands before what the workflow sets in that turn."""

    async def flow():
        await s(1)
        set_attributes(phase="by the workflow")
        await s(2)
        hook = create_hook(token="t")
        await hook.get_conflict()
        set_attributes(seen="x")
        await s(3)

    sim = play(flow)
    sim.turn(sim.completed("s"), events.AttributesSet(at=0, op_id="r#1", attributes={"phase": "by the step"}))
    sim.complete("s")

    assert sim.attributes == {"phase": "by the workflow", "seen": "x"}
    assert sim.kept._context.attributes.current() == sim.cold()._context.attributes.current() == sim.attributes


# Code that changed


def replayed(sim: Simulator, function: Callable[..., Any]) -> Any:
    """A replay of the log by other code, and of one step's end more."""
    replay = sim.cold(workflow=made(function))
    replay.feed([sim.completed("s")])
    assert replay.fault is None
    return replay


def test_a_call_added_behind_a_run_sets_nothing():
    """Nor does it take the place of what the run sets ahead; so an attribute is never set back."""

    async def old():
        set_attributes(phase="one")
        await s(1)
        set_attributes(phase="two")

    async def new():
        set_attributes(customer="acme")
        set_attributes(phase="one")
        await s(1)
        set_attributes(phase="two")

    replay = replayed(play(old), new)

    assert [command.attributes for command in replay.take()] == [{"phase": "two"}]


def test_a_call_removed_behind_a_run_swallows_none_ahead():
    """What the run sets next is set, though fewer calls came before it."""

    async def old():
        set_attributes(phase="one")
        set_attributes(customer="acme")
        await s(1)

    async def new():
        await s(1)
        set_attributes(phase="two")

    replay = replayed(play(old), new)

    assert [command.attributes for command in replay.take()] == [{"phase": "two"}]
    assert replay._context.attributes.current() == {"phase": "two", "customer": "acme"}


def test_a_value_that_changed_blocks_no_run():
    """Attributes are labels: what was recorded stays, and the run goes on."""

    async def old():
        set_attributes(phase="one")
        await s(1)

    async def new():
        set_attributes(phase="first", run=get_workflow_metadata().run_id)
        await s(1)

    assert replayed(play(old), new).outcome.status == "completed"


def test_a_step_that_nobody_calls_any_more_blocks_the_run_as_ever():
    """The change that it made is no second reason, and hides none."""

    async def old():
        await s(1)

    async def new():
        await sleep(1)

    sim = play(old).label("s", {"phase": "one"})
    replay = sim.cold(workflow=made(new))

    assert isinstance(replay.fault, NonDeterminismError)
    assert "test_attributes.s" in replay.fault.recorded


# In the store


def test_the_index_finds_runs_by_name_and_value(engine):
    """SQLite reads the entries of the name and value, and no table from end to end."""
    query = sa.select(runs.c.id).where(*matching(runs.c.id, {"customer": "acme"}))
    plan = query.compile(engine.store.engine, compile_kwargs={"literal_binds": True})

    with engine.store.read() as tx:
        said = " ".join(row.detail for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {plan}"))

    assert "durable_attributes USING COVERING INDEX durable_attributes_by_value (name=? AND value=?" in said
    assert "SCAN" not in said
