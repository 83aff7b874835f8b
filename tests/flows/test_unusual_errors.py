"""Errors that are no ``Exception``, errors that raise when they are looked at, and logging that raises."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from celery.exceptions import WorkerShutdown, WorkerTerminate
from driving import kinds, settle
from gevent import Timeout
from greenlet import GreenletExit

from durable import (
    Durable,
    Run,
    RunFailed,
    StepFailed,
    codec,
    get_step_metadata,
    registry,
    step,
    step_session,
    workflow,
)
from durable.attempts.attempt import attempt
from durable.attempts.claim import Address, claim
from durable.attempts.outcome import MOST_INTERRUPTIONS, release
from durable.store.schema import steps
from durable.turns.drive import drive

#: How often the function of a step was called, by run.
calls: Counter[str] = Counter()


class Odd(BaseException):
    """An author's own, which is no Exception."""


class Leaves(SystemExit):
    """An author's own way out."""


class HidesItsCause(Exception):
    @property
    def __cause__(self) -> None:  # type: ignore[override]
        raise RuntimeError("no cause")


class HidesItsNotes(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError("no notes")


class LeavesWhenAsked(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class NotReduced(Exception):
    def __reduce__(self) -> Any:
        raise Odd("not reduced")


def holds_itself() -> Exception:
    error = ValueError("ring")
    error.args = (error,)
    return error


def with_invalid_notes() -> Exception:
    error = ValueError("notes")
    error.__notes__ = 5  # type: ignore[assignment]
    return error


NO_EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    "Odd": lambda: Odd("odd"),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("several", [Odd("odd"), SystemExit(3)]),
    "SystemExit": lambda: SystemExit(3),
    "Leaves": lambda: Leaves(-241),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "Timeout": lambda: Timeout(1),
    "CancelledError": asyncio.CancelledError,
}
EVIL: dict[str, Callable[[], BaseException]] = {
    "ValueError": holds_itself,
    "HidesItsCause": lambda: HidesItsCause("x"),
    "HidesItsNotes": lambda: HidesItsNotes("x"),
    "LeavesWhenAsked": lambda: LeavesWhenAsked("x"),
    "NotReduced": lambda: NotReduced("x"),
    "invalid notes": with_invalid_notes,
}
ERRORS = NO_EXCEPTIONS | EVIL


def fail(how: str) -> None:
    calls[get_step_metadata().run_id] += 1
    raise ERRORS[how]()


@step(max_retries=0)
def once(how: str) -> None:
    fail(how)


@step(max_retries=0)
async def once_async(how: str) -> None:
    await asyncio.sleep(0)
    fail(how)


@step(max_retries=1, retry_backoff=0)
def twice(how: str) -> None:
    fail(how)


@step(max_retries=0)
async def in_a_task(how: str) -> None:
    await asyncio.create_task(once_async.function(how))


STEPS = {"def": once, "async def": once_async, "twice": twice, "in a task": in_a_task}


@workflow(name="unusual.awaits")
async def awaits(which: str, how: str) -> None:
    await STEPS[which](how)


@pytest.fixture
def as_in_a_worker() -> Iterator[None]:
    """SIGINT is handled, as Celery does: a KeyboardInterrupt is the code's own."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


def failed(engine: Durable, run: Run[Any]) -> RunFailed:
    settle(engine, run)
    with pytest.raises(RunFailed) as raised:
        run.result()
    return raised.value


@pytest.mark.usefixtures("as_in_a_worker")
@pytest.mark.parametrize("which", ["def", "async def"])
@pytest.mark.parametrize("how", ERRORS)
def test_whatever_a_step_raises_is_an_attempt_that_failed(engine, how, which):
    """It ran once; the run fails with the error, and the author's line."""
    run = engine.start(awaits, which, how)
    failed(engine, run)
    (event,) = [event for event in run.events() if event.kind == "step_failed"]
    error = codec.error_summary(event.error)

    assert calls[run.id] == 1
    assert error.error_type == type(ERRORS[how]()).__name__
    assert "in fail" in error.traceback


@pytest.mark.usefixtures("as_in_a_worker")
@pytest.mark.parametrize("how", ERRORS)
def test_whatever_a_step_raises_is_tried_again_by_its_policy(engine, how):
    """Two attempts, and no more."""
    run = engine.start(awaits, "twice", how)
    failed(engine, run)

    assert calls[run.id] == 2
    assert kinds(run).count("step_retrying") == 1


@pytest.mark.usefixtures("as_in_a_worker")
@pytest.mark.parametrize("how", ["SystemExit", "KeyboardInterrupt", "Odd"])
def test_an_exit_in_a_task_of_an_async_step_leaves_the_loop_to_the_others(engine, how):
    """The step fails with it, and the next async step of the process runs."""
    for _ in range(2):
        run = engine.start(awaits, "in a task", how)
        assert failed(engine, run).message.startswith(how)
        assert calls[run.id] == 1


def interrupted(engine: Durable, run: Run[Any], error: type[BaseException]) -> None:
    """One attempt of the run's step, in a process that ends in the middle of it."""
    with engine.store.read() as tx:
        row = tx.execute(sa.select(steps).where(steps.c.run_id == run.id)).one()
    with pytest.raises(error):
        attempt(engine, registry.steps[row.name], Address(run.id, row.op_id, row.attempt), None)


ENDS: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(-(256 - signal.SIGTERM)),  # as billiard ends a child
    "WorkerShutdown": WorkerShutdown,
    "WorkerTerminate": WorkerTerminate,
    "GreenletExit": GreenletExit,
}


@step(max_retries=1)
def ends_its_process(how: str) -> str:
    calls[get_step_metadata().run_id] += 1
    if get_step_metadata().attempt == 1:
        raise ENDS[how]()
    return "done"


@step(max_retries=0)
def always_ends_its_process(how: str) -> str:
    calls[get_step_metadata().run_id] += 1
    raise ENDS[how]()


@workflow(name="unusual.ends")
async def ends(how: str, retries: bool) -> Any:
    try:
        return await (ends_its_process if retries else always_ends_its_process)(how)
    except StepFailed as error:
        return error.error_type, error.message


@pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"], indirect=True)
def test_an_attempt_that_is_always_interrupted_is_lost_at_last(engine):
    """The first interruptions are not counted; at the limit the attempt fails as lost, and the error says why."""
    run = engine.start(ends, "WorkerShutdown", False)
    drive(engine, run.id)
    for _ in range(MOST_INTERRUPTIONS):
        interrupted(engine, run, WorkerShutdown)
    settle(engine, run)

    assert calls[run.id] == MOST_INTERRUPTIONS
    kind, message = run.result()
    assert kind == "WorkerLost"
    assert f"interrupted {MOST_INTERRUPTIONS} times" in message


@pytest.mark.parametrize("how", ENDS)
def test_an_attempt_is_released_when_its_process_ends_and_then_counts(engine, how):
    """Each kind of exit is passed on; the next attempt follows the one that is lost."""
    run = engine.start(ends, how, True)
    drive(engine, run.id)
    for _ in range(MOST_INTERRUPTIONS):
        interrupted(engine, run, type(ENDS[how]()))
    settle(engine, run)

    assert run.result() == "done"
    assert calls[run.id] == MOST_INTERRUPTIONS + 1


def test_an_attempt_that_had_not_begun_is_released_without_limit(engine):
    """Only interruptions of the function count; a claim whose function has not begun does not."""
    run = engine.start(ends, "WorkerShutdown", False)
    drive(engine, run.id)
    for _ in range(MOST_INTERRUPTIONS + 2):
        held = claim(engine, always_ends_its_process, Address(run.id, "r#1", 1), None)
        assert held is not None
        release(engine, held, has_begun=False)

    with engine.store.read() as tx:
        row = tx.execute(sa.select(steps.c.status, steps.c.attempt).where(steps.c.run_id == run.id)).one()
    assert tuple(row) == ("pending", 1)


# Workflows.


@step
def fine() -> str:
    return "fine"


def raise_here(how: str) -> None:
    raise ERRORS[how]()


@workflow(name="unusual.raises")
async def raises(how: str, where: str) -> None:
    async def child() -> None:
        raise_here(how)

    if where != "at once":
        await fine()
    if where == "in a task":
        await asyncio.create_task(child())
    if where == "in a group":
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
    raise_here(how)


@workflow(name="unusual.calls")
async def calls_child(how: str) -> str:
    try:
        await raises(how, "at once")
    except RunFailed as error:
        return error.error_type
    return "no error"


@pytest.mark.usefixtures("as_in_a_worker")
@pytest.mark.parametrize("where", ["at once", "after a step", "in a task"])
@pytest.mark.parametrize("how", [each for each in ERRORS if each not in ("CancelledError", "GeneratorExit")])
def test_whatever_a_workflow_raises_fails_its_run(engine, how, where):
    """The first turn that meets it ends the run, with the error and the author's line; the process lives on."""
    run = engine.start(raises, how, where)
    error = failed(engine, run)

    assert error.error_type == type(ERRORS[how]()).__name__
    assert "in raise_here" in error.traceback
    assert run.status == "failed"


@pytest.mark.usefixtures("as_in_a_worker")
def test_an_exit_in_a_task_group_fails_the_run(engine):
    """TaskGroup raises it as it is, not in a group."""
    run = engine.start(raises, "SystemExit", "in a group")

    assert failed(engine, run).error_type == "SystemExit"


def test_the_end_of_a_process_in_a_workflow_fails_no_run(engine):
    """It is passed on, and nothing of the turn is written."""
    ERRORS["the end"] = ENDS["SystemExit"]
    try:
        run = engine.start(raises, "the end", "at once")
        with pytest.raises(SystemExit):
            drive(engine, run.id)
    finally:
        del ERRORS["the end"]

    assert run.status == "pending"
    assert kinds(run) == []


# Logging.


class Raises:
    """Each way in which an application's logging can raise on a record with an exception."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info or record.args:
            raise Odd("filter")
        return True


class RaisingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.args:
            raise RuntimeError("handler")


class RaisingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        raise RecursionError("formatter")


@contextmanager
def raising(where: str) -> Iterator[None]:
    """Within it the application's logging raises."""
    logger, root, factory = logging.getLogger("durable.steps"), logging.getLogger(), logging.getLogRecordFactory()
    handler = RaisingHandler()
    if where == "formatter":
        handler = logging.StreamHandler()  # type: ignore[assignment]
        handler.setFormatter(RaisingFormatter())
    if where == "filter of a handler":
        handler = logging.StreamHandler()  # type: ignore[assignment]
        handler.addFilter(Raises())

    def raising_factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        raise KeyError("factory")

    if where == "filter of the logger":
        logger.addFilter(wrong := Raises())
    elif where == "record factory":
        logging.setLogRecordFactory(raising_factory)
    else:
        root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        logging.setLogRecordFactory(factory)
        if where == "filter of the logger":
            logger.removeFilter(wrong)


PLACES = ["filter of the logger", "filter of a handler", "handler", "formatter", "record factory"]


@pytest.mark.parametrize("manner", [{"continuation": 0}, {"continuation": "60s"}], ids=["by-messages", "in-place"])
@pytest.mark.parametrize("where", PLACES)
def test_logging_that_raises_changes_no_outcome(engine, where):
    """Two attempts are recorded, and the run fails with the step's error."""
    run = engine.start(awaits, "twice", "ValueError")
    with raising(where):
        settle(engine, run)

    assert calls[run.id] == 2
    assert run.status == "failed"
    assert kinds(run).count("step_retrying") == 1


def test_a_record_that_is_lost_is_told(engine, capsys):
    """On the standard error, with the name of what was raised and without asking it anything."""
    run = engine.start(awaits, "def", "ValueError")
    with raising("handler"):
        settle(engine, run)

    assert "a record of the logger 'durable.steps' was lost" in capsys.readouterr().err


# Sessions.


@step(semantics="transactional", max_retries=1, retry_backoff=0)
def writes() -> str:
    """The application listens to its transaction, and its listener raises the first time."""
    run_id, number = get_step_metadata().run_id, get_step_metadata().attempt
    calls[run_id] += 1

    def listener(_connection: Any) -> None:
        raise Odd("listener")

    if number == 1:
        sa.event.listen(step_session().connection(), "commit", listener)
    return f"attempt {number}"


@workflow(name="unusual.writes")
async def asks_to_write() -> str:
    return await writes()


def test_a_listener_that_raises_at_the_commit_fails_the_attempt(engine):
    """Nothing of it is committed; the next attempt is."""
    run = engine.start(asks_to_write)
    settle(engine, run)

    assert run.result() == "attempt 2"
    assert calls[run.id] == 2
