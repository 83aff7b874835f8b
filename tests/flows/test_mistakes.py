"""Mistakes in a workflow's code block its run, which goes on once they are corrected; all other errors fail it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from driving import all_databases, more_engines, settle, settle_family

from durable import (
    ConfigurationError,
    Durable,
    RunCancelled,
    RunFailed,
    create_webhook,
    registry,
    sleep,
    step,
    workflow,
)
from durable.client import describe, operate
from durable.store import runs

#: What the bodies of workflows do; tests set it.  It is no part of the code's version.
code = SimpleNamespace(act=list)


@pytest.fixture(autouse=True)
def _correct() -> Iterator[None]:
    deploy(list)
    yield
    deploy(list)


def act() -> Any:
    """Do what the test wants, at one line for all."""
    return code.act()


def deploy(function: Callable[[], Any]) -> None:
    """Change what workflows do."""
    code.act = function


@step(name="mistakes.note", max_retries=0)
def note(value: Any) -> Any:
    return value


@step(name="mistakes.broken", max_retries=0)
def broken() -> None:
    raise AttributeError("of the step")


@workflow(name="mistakes.acting")
async def acting() -> Any:
    await note("before")
    result = act()
    return await result if asyncio.iscoroutine(result) else result


@workflow(name="mistakes.at_once")
async def at_once() -> Any:
    return act()


@workflow(name="mistakes.failing", failure_exceptions=(TypeError, KeyError))
async def failing() -> Any:
    return act()


@workflow(name="mistakes.failing_always", failure_exceptions=(BaseException,))
async def failing_always() -> Any:
    return act()


@workflow(name="mistakes.listening")
async def listening() -> str:
    await note("before")
    webhook = create_webhook()
    return await note(webhook.url)


@workflow(name="mistakes.parent")
async def parent() -> Any:
    return await acting()


@workflow(name="mistakes.asking_broken")
async def asking_broken(how: str) -> None:
    if how == "awaited":
        await broken()
    elif how == "gathered":
        found = await asyncio.gather(broken(), return_exceptions=True)
        raise found[0]
    elif how == "again":
        try:
            await broken()
        except AttributeError as error:
            raise AttributeError("of the body") from error
    else:
        async with asyncio.TaskGroup() as group:
            group.create_task(call_broken())


async def call_broken() -> None:
    await broken()


@workflow(name="mistakes.cleaning")
async def cleaning() -> None:
    try:
        await sleep("1h")
    finally:
        act()


def misspelt() -> None:
    chrage  # type: ignore[name-defined]  # noqa: B018, F821


def unknown_attribute() -> None:
    asyncio.slep  # type: ignore[attr-defined]  # noqa: B018


def missing_import() -> None:
    import no_such_package_at_all  # type: ignore[import-not-found]  # noqa: F401


def sleeping() -> None:
    time.sleep(0)


def too_many_arguments() -> None:
    note(1, 2, 3)  # type: ignore[call-arg]


def unconfigured() -> None:
    raise ConfigurationError("set it")


async def grouped() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(failing_task())
        group.create_task(mistaken_task())


async def failing_task() -> None:
    raise ValueError("of the data")


async def mistaken_task() -> None:
    misspelt()


MISTAKES = [misspelt, unknown_attribute, missing_import, sleeping, too_many_arguments, unconfigured, grouped]


def blocked_reason(engine: Durable, run: Any) -> str:
    return str(describe.describe(engine, run.id)["error"])


@all_databases()
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda each: each.__name__)
def test_a_mistake_blocks_the_run_with_the_line_and_a_retry_goes_on(engine, mistake):
    """The log stays as it was, the reason names the author's line, and corrected code goes on from there."""
    deploy(mistake)
    run = acting.start()
    settle(engine, run)

    assert run.status == "blocked"
    before = run.events()
    line = (misspelt if mistake is grouped else mistake).__code__.co_firstlineno + 1
    assert f"{__file__}:{line}" in blocked_reason(engine, run)

    deploy(lambda: "corrected")
    assert operate.retry(engine, run.id)
    settle(engine, run)
    assert run.result(timeout=1) == "corrected"
    assert run.events()[: len(before)] == before


def raiser(error: BaseException) -> Callable[[], Any]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [ValueError("no such customer"), KeyError("k"), LookupError(), ZeroDivisionError(), AssertionError("a"), OSError()],
    ids=lambda each: type(each).__name__,
)
def test_any_other_error_fails_the_run(engine, error):
    """What may be due to values and to the world is the run's failure, as it was."""
    deploy(raiser(error))
    run = acting.start()
    settle(engine, run)

    with pytest.raises(RunFailed):
        run.result(timeout=1)


@pytest.mark.parametrize("how", ["awaited", "gathered", "grouped"])
def test_an_error_of_a_step_fails_the_run_whatever_its_class(engine, how):
    """The step's AttributeError came out of the world, however it reaches the end of the body."""
    run = asking_broken.start(how)
    settle(engine, run)

    with pytest.raises(RunFailed, match=r"AttributeError: of the step|unhandled errors"):
        run.result(timeout=1)


def test_an_error_that_the_body_raises_from_a_steps_error_is_the_bodys(engine):
    """Only the error itself counts, not its cause."""
    run = asking_broken.start("again")
    settle(engine, run)

    assert run.status == "blocked"
    assert "AttributeError: of the body" in blocked_reason(engine, run)


def test_failure_exceptions_fail_the_run(engine):
    """The classes that a workflow names fail its run, and their subclasses; the others still block it."""
    for definition, function, status in [
        (failing, raiser(TypeError("t")), "failed"),
        (failing, misspelt, "blocked"),
        (failing_always, misspelt, "failed"),
        (failing_always, sleeping, "failed"),
    ]:
        deploy(function)
        run = definition.start()
        settle(engine, run)
        assert run.status == status


@pytest.mark.parametrize("wrong", [ValueError, ("ValueError",), (int,), "ValueError"])
def test_failure_exceptions_that_are_no_classes_are_refused(own_registry, wrong):
    """The decorator says what to write."""

    async def refused() -> None: ...

    with pytest.raises(ConfigurationError, match="failure_exceptions"):
        workflow(name="mistakes.refused", failure_exceptions=wrong)(refused)


def test_a_new_version_of_the_code_goes_on(engine, monkeypatch):
    """As after a deploy: a message is enough, no operator is needed."""
    deploy(misspelt)
    run = acting.start()
    settle(engine, run)
    assert run.status == "blocked"

    deploy(lambda: "deployed")
    settle(engine, run)
    assert run.status == "blocked"

    monkeypatch.setattr(engine, "code_version", lambda workflow: "the next one")
    settle(engine, run)
    assert run.result(timeout=1) == "deployed"


@all_databases()
def test_a_worker_that_starts_later_tries_once(engine, other):
    """A missing package and a setting are no part of the code's version: a restart of the workers is enough."""
    deploy(missing_import)
    run = acting.start()
    settle(engine, run)
    assert run.status == "blocked"

    restarted = other()
    settle(restarted, run)
    turn = restarted.client.find(run.id).turn
    settle(restarted, run)
    assert restarted.client.find(run.id).turn == turn, "it tries once"

    deploy(lambda: "installed")
    settle(restarted, run)
    assert run.status == "blocked"
    settle(other(), run)
    assert run.result(timeout=1) == "installed"


def test_a_run_that_began_without_a_public_url_goes_on_once_there_is_one(engine, other):
    """It was blocked by ConfigurationError, and its log has no URL: it takes that of the worker."""
    unset = other(public_url=None)
    run = unset.start(listening)
    settle(unset, run)
    assert run.status == "blocked"
    assert "DURABLE_PUBLIC_URL" in blocked_reason(unset, run)

    settle(other(public_url="https://late.test"), run)
    assert run.status == "completed"
    assert run.result(timeout=1).startswith("https://late.test/")


@all_databases()
def test_a_blocked_child_keeps_its_parent_waiting(engine):
    """The parent is running until the child has been corrected."""
    deploy(misspelt)
    run = parent.start()
    settle_family(engine, run)
    with engine.store.read() as tx:
        (child,) = runs.open_children(tx, run.id)
    assert (run.status, engine.get_run(child.id).status) == ("running", "blocked")

    deploy(lambda: "corrected")
    operate.retry(engine, child.id)
    settle_family(engine, run)
    assert run.result(timeout=1) == "corrected"


def test_a_mistake_in_the_first_turn_blocks_a_pending_run(engine):
    """It has not started: its log is as `start` left it."""
    deploy(misspelt)
    run = at_once.start()
    settle(engine, run)
    assert (run.status, run.events()[1:]) == ("blocked", [])

    operate.retry(engine, run.id)
    deploy(lambda: 7)
    settle(engine, run)
    assert run.result(timeout=1) == 7


def test_a_mistake_in_a_cleanup_does_not_keep_a_run_from_being_cancelled(engine):
    """A cancelled run ends, and its error says what went wrong."""
    deploy(misspelt)
    run = cleaning.start()
    settle(engine, run)
    run.cancel()
    settle(engine, run)

    with pytest.raises(RunCancelled) as cancelled:
        run.result(timeout=1)
    assert isinstance(cancelled.value.__cause__, NameError)


def test_waiting_for_the_result_of_a_blocked_run_says_why(engine):
    """The error of the timeout has the reason, so that a test of an application shows its mistake."""
    deploy(misspelt)
    run = acting.start()
    settle(engine, run)
    with pytest.raises(TimeoutError, match="name 'chrage' is not defined"):
        run.result(timeout=0)


@pytest.fixture
def other(database: str) -> Iterator[Callable[..., Durable]]:
    with more_engines(database) as make:
        yield make


def test_the_registry_knows_what_fails_a_workflow():
    """The classes are on the definition."""
    assert registry.workflows["mistakes.failing"].failure_exceptions == (TypeError, KeyError)
    logging.getLogger("tests.mistakes").debug("known")
