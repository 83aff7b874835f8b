"""The tables of transitions: each one is made to happen, and no other one is seen."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from driving import settle
from giving_up import attempting, here, rows, seen

from durable import Durable, Run, continue_as_new, create_hook, get_workflow_metadata, resume_hook, step, workflow
from durable.attempts import outcome
from durable.client import operate
from durable.recovery.prune import prune_batch
from durable.store import claimed_attempts
from durable.store.transitions import ENDED, RUN_TRANSITIONS, STEP_TRANSITIONS, mermaid
from durable.turns.drive import drive

DOCS = Path(__file__).parents[2] / "docs"

#: Whether bodies spin.
spinning = {"now": True}


@step(retry_backoff=0)
def works() -> str:
    """Fails at its first attempt."""
    mine = here()
    mine.did.append("worked")
    if len(mine.did) == 1:
        raise ConnectionError("refused")
    return "done"


@step(semantics="at_most_once", max_retries=1, retry_backoff=0)
def pays() -> str:
    """Waits for the test, then fails."""
    mine = here()
    mine.begun.set()
    assert mine.gate.wait(10)
    raise ConnectionError("refused")


@workflow
async def does(*deeds: str) -> Any:
    for deed in deeds:
        match deed:
            case "raise":
                raise ValueError("refused")
            case "listen":
                await create_hook(token=f"{get_workflow_metadata().run_id}")
            case "spin":
                while spinning["now"]:
                    pass
            case "work":
                await works()
            case "continue":
                continue_as_new()
            case "pay":
                await pays()
            case "drop":
                call = asyncio.ensure_future(works())
                await create_hook(token=f"{get_workflow_metadata().run_id}")
                call.cancel()


@pytest.fixture
def transitions(engine: Durable) -> Callable[[str], set[tuple[str | None, str | None]]]:
    """Reads the transitions of a table's rows that have been seen, as ``(from, to)``."""
    spinning["now"] = True
    with engine.store.begin() as tx:
        tx.execute(sa.text("CREATE TABLE seen (name TEXT, a TEXT, b TEXT)"))
        for name in ("runs", "steps"):
            for event, a, b in (
                ("INSERT", "NULL", "NEW.status"),
                ("UPDATE", "OLD.status", "NEW.status"),
                ("DELETE", "OLD.status", "NULL"),
            ):
                tx.execute(
                    sa.text(
                        f"CREATE TRIGGER {name}_{event} AFTER {event} ON durable_{name} WHEN {a} IS NOT {b}"
                        f" BEGIN INSERT INTO seen VALUES ('{name}', {a}, {b}); END"
                    )
                )

    def read(name: str) -> set[tuple[str | None, str | None]]:
        with engine.store.read() as tx:
            query = sa.text("SELECT DISTINCT a, b FROM seen WHERE name = :name")
            return {(row.a, row.b) for row in tx.execute(query, {"name": name})}

    return read


def listening(engine: Durable, *deeds: str) -> Run[Any]:
    """A run that has waited for a hook, and then did the rest."""
    run = engine.start(does, *deeds)
    settle(engine, run)
    resume_hook(run.id, None)
    settle(engine, run)
    return run


@pytest.mark.usefixtures("unmeasured")
def test_runs(engine, transitions):
    """Each transition of runs, by what the table says causes it."""
    engine.settings = replace(engine.settings, turn_cpu_limit=50_000)
    runs = [engine.start(does), engine.start(does, "raise")]
    settle(engine, *runs)
    runs += [listening(engine, "listen"), listening(engine, "listen", "raise"), listening(engine, "listen", "spin")]
    runs += [engine.start(does, "continue"), listening(engine, "listen", "continue")]
    settle(engine, runs[-2])
    runs += [engine.start(does, "listen"), engine.start(does, "spin")]
    settle(engine, *runs[-2:])
    for run in (*runs[-2:], engine.start(does)):
        run.cancel()
        settle(engine, run)
    blocked = [engine.start(does, "spin", *rest) for rest in ((), ("raise",), ("listen",), ("continue",))]
    settle(engine, *blocked)
    spinning["now"] = False
    for run in blocked:
        operate.retry(engine, run.id)
    settle(engine, *blocked)
    settle(engine, *(each for run in (*runs, *blocked) for each in run.generations()))
    prune_batch(engine, engine.now() + 1_000_000)

    assert transitions("runs") == set(RUN_TRANSITIONS)


def test_steps(engine, transitions):
    """Each transition of steps, by what the table says causes it."""
    for in_place_micros in (60_000_000, 0):
        engine.settings = replace(engine.settings, continuation=in_place_micros)
        settle(engine, engine.start(does, "work"))
    dropped = engine.start(does, "drop")
    drive(engine, dropped.id)
    resume_hook(dropped.id, None)
    drive(engine, dropped.id)
    for is_resolved in (False, True):
        run = engine.start(does, "pay")
        drive(engine, run.id)
        with attempting(engine, run, "pays"):
            (row,) = rows(engine, run)
            with engine.store.read() as tx:
                claimed = claimed_attempts.find(tx, run.id, row.op_id)
            assert claimed is not None
            outcome.give_up(engine, claimed)
            assert run.status == "blocked"
            if is_resolved:
                run.resolve(result="paid")
            seen(run.id).gate.set()

    assert transitions("steps") == set(STEP_TRANSITIONS)


def test_nothing_follows_the_end_of_a_run():
    """A run that has ended changes no more, but for its deletion."""
    assert {b for a, b in RUN_TRANSITIONS if a in ENDED} == {None}


def test_the_docs_have_the_diagrams():
    """The docs have what ``python docs/make_diagrams.py`` prints."""
    found = [
        diagram
        for page in DOCS.rglob("*.md")
        for diagram in re.findall(r"```mermaid\n(stateDiagram-v2\n.*?)\n```", page.read_text(), re.DOTALL)
    ]

    assert found == [mermaid(RUN_TRANSITIONS), mermaid(STEP_TRANSITIONS)]
