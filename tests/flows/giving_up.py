"""Steps that a test holds up, workflows that give them up, and what those steps saw of it."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from durable import Run, create_hook, get_step_metadata, race, registry, resume_hook, step, workflow
from durable.attempts.attempt import Finished, attempt
from durable.attempts.claim import Address
from durable.store.schema import steps
from durable.turns.drive import drive

#: How long a step waits here for what a test does, at most.
TIMEOUT_SECS = 10


@dataclass
class Seen:
    """What a run's steps did, and the gates by which a test holds them up."""

    did: list[Any] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)
    tidying: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)


_seen: dict[str, Seen] = {}


def seen(run_id: str) -> Seen:
    return _seen.setdefault(run_id, Seen())


def here() -> Seen:
    """Of the run whose step runs here."""
    return seen(get_step_metadata().run_id)


@step(retry_backoff=0)
def gated(how: str) -> str:
    """Wait for the test, then end as told."""
    mine = here()
    mine.did.append(f"gated {get_step_metadata().attempt}")
    mine.begun.set()
    assert mine.gate.wait(TIMEOUT_SECS)
    if how == "raises":
        raise ConnectionError("too late")
    if how == "stopped":
        raise SystemExit(-(256 - signal.SIGTERM))  # as billiard ends a child
    return "done"


@step
def polls() -> str:
    """Work in small pieces, and look before each whether anybody still wants it."""
    metadata = get_step_metadata()
    here().begun.set()
    pause = threading.Event()
    for _ in range(TIMEOUT_SECS * 100):
        if metadata.cancelled:
            here().did.append("saw it")
            return "stopped early"
        pause.wait(0.01)
    return "did all of it"


@step
async def tidies() -> str:
    """Sleep for long; clean up when cancelled, which takes a moment."""
    mine = here()
    mine.begun.set()
    try:
        await asyncio.sleep(TIMEOUT_SECS)
    except asyncio.CancelledError:
        mine.did.append("cancelled")
        mine.tidying.set()
        await asyncio.get_running_loop().run_in_executor(None, mine.gate.wait, TIMEOUT_SECS)
        mine.did.append("tidied up")
        raise
    return "slept"


@step
def note(what: str) -> str:
    here().did.append(what)
    return what


STEPS: dict[str, registry.Step[..., Any]] = {"gated": gated, "polls": polls, "tidies": tidies}


@workflow
async def does(what: str, *args: str) -> Any:
    """Await one step."""
    return await STEPS[what](*args)


@workflow
async def gives_up(what: str, how: str, *args: str) -> str:
    """Begin a step, and give it up when the hook is resumed."""
    hook = create_hook()
    call = asyncio.ensure_future(STEPS[what](*args))
    if how == "race":
        await race(call, hook)
    else:
        await hook
        call.cancel()
    return await note("went on")


@contextmanager
def attempting(engine: Any, run: Run[Any], name: str) -> Iterator[Future[Finished | None]]:
    """An attempt of the run's step of this short name, begun in a thread; it has ended when the block has."""
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(attempt, engine, *found(engine, run, name), None)
        try:
            assert seen(run.id).begun.wait(TIMEOUT_SECS)
            yield running
        finally:
            seen(run.id).gate.set()
        running.result(TIMEOUT_SECS)


def found(engine: Any, run: Run[Any], name: str) -> tuple[registry.Step[..., Any], Address]:
    """The step that the run asked for, and the address of its attempt."""
    row = next(row for row in rows(engine, run) if row.name.endswith(f".{name}"))
    return registry.steps[row.name], Address(run.id, row.op_id, row.attempt)


def rows(engine: Any, run: Run[Any]) -> list[Any]:
    """The run's steps that are to run, or run."""
    with engine.store.read() as tx:
        return list(tx.execute(sa.select(steps).where(steps.c.run_id == run.id).order_by(steps.c.op_id)))


def give_up_call(engine: Any, run: Run[Any], how: str) -> None:
    """Have the workflow give its step up while that runs."""
    if how == "run":
        run.cancel()
    else:
        resume_hook(run.hooks()[0]["token"], None)
    drive(engine, run.id)


def begin(engine: Any, what: str, how: str, *args: str) -> Run[Any]:
    run: Run[Any] = engine.start(does, what, *args) if how == "run" else engine.start(gives_up, what, how, *args)
    drive(engine, run.id)
    return run
