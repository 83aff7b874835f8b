"""Errors of steps and workflows: how often they are tried, and what of them arrives where they are caught."""

from __future__ import annotations

import secrets
import signal
import sys
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, settle
from programs import ACTIONS
from trouble import cut_off, unacknowledged

from durable import (
    FatalError,
    Request,
    RetryableError,
    RunFailed,
    StepFailed,
    create_webhook,
    get_step_metadata,
    registry,
    step,
    workflow,
)
from durable.attempts.attempt import attempt
from durable.attempts.claim import Address
from durable.client import describe
from durable.duration import due_at
from durable.store.schema import steps
from durable.turns.drive import drive
from durable.web import record_request

# Storage that is away while a step is handled.


@step(max_retries=0)
def counts(request: Request | None, key: str) -> tuple[int, str]:
    """One attempt only: whatever costs one, fails."""
    return get_step_metadata().attempt, key if request is None else request.text()


@workflow(name="errors.counted")
async def counted(key: str) -> Any:
    return await counts(None, key)


@workflow(name="errors.counted_request")
async def counted_request(key: str) -> Any:
    return await counts(await create_webhook(), key)


@dataclass(slots=True)
class Rejected(Exception):
    order: str
    code: int


@dataclass(frozen=True)
class Sealed(Exception):
    code: int


@step(max_retries=0)
def rejects(sealed: bool) -> None:
    raise Sealed(7) if sealed else Rejected(order="o1", code=7)


@workflow
async def catches_rejected(sealed: bool) -> Any:
    try:
        await rejects(sealed)
    except (Rejected, Sealed) as error:
        return [repr(error), error.code, error.__notes__]


@all_databases()
@pytest.mark.parametrize(("sealed", "shown"), [(False, "Rejected(order='o1', code=7)"), (True, "Sealed(code=7)")])
def test_c27_a_dataclass_is_an_error_like_any_other(engine, sealed, shown):
    """One with slots, and a frozen one: its fields, its `repr`, and the note that says which step failed."""
    run = engine.start(catches_rejected, sealed)
    settle(engine, run)

    note = f"Step {rejects.name} (r#1) failed after 1 attempt."
    assert run.result() == [shown, 7, [note]]


@pytest.fixture
def manner(request: pytest.FixtureRequest, database: str) -> dict[str, Any]:
    """Message by message, where each of these statements is one of its own; else as everywhere."""
    plain = "statement" in request.fixturenames or database.startswith("sqlite")
    return {"continuation": 0} if plain else {"continuation": "60s"}


@all_databases()
@pytest.mark.parametrize(
    ("statement", "transaction"),
    [
        ("UPDATE durable_steps", 1),
        ("SELECT durable_steps.claim", 1),
        ("DELETE FROM durable_steps", 2),
        ("INSERT INTO durable_inbox", 2),
    ],
)
def test_c31_a_database_that_goes_away_costs_no_attempt(engine, statement, transaction):
    """Its connection cut, its file locked, while an attempt is claimed or its outcome recorded: it is done again."""
    run = counted.start("kept")
    drive(engine, run.id)
    if engine.store.dialect == "postgresql" and statement.startswith("SELECT"):
        statement = "UPDATE durable_steps"  # which returns what is claimed
    with cut_off(engine, statement, transaction) as cut:
        settle(engine, run)

    assert len(cut) == 1
    assert run.result() == (1, "kept")
    assert "step_retrying" not in kinds(run)


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_c31_a_database_that_goes_away_while_arguments_are_read_costs_no_attempt(engine):
    """The request that an attempt is given is read again."""
    run = counted_request.start("kept")
    settle(engine, run)
    row = record_request.find_webhook(engine, run.hooks()[0]["token"])
    record_request.accept_request(
        engine, row, Request("POST", "/x", data=b"body", id=secrets.token_hex(9)), holder=None
    )
    drive(engine, run.id)
    with engine.store.read() as tx:
        (op_id,) = tx.execute(sa.select(steps.c.op_id).where(steps.c.run_id == run.id)).scalars()
    with cut_off(engine, "SELECT durable_requests.id") as cut:
        attempt(engine, registry.steps[counts.name], Address(run.id, op_id, 1), None)
    settle(engine, run)

    assert len(cut) == 1
    assert run.result() == (1, "body")


@all_databases()
def test_c31_a_claim_whose_commit_was_not_acknowledged_is_the_attempts_own(engine):
    """The attempt runs at once, and is the first."""
    run = counted.start("kept")
    drive(engine, run.id)
    with unacknowledged(engine) as lost:
        attempt(engine, registry.steps[counts.name], Address(run.id, "r#1", 1), None)
    settle(engine, run)

    assert lost == ["the acknowledgement"]
    assert run.result() == (1, "kept")


# When the next attempt comes.


@step(retry_backoff=0)
def busy(retry_after: Any) -> tuple[int, list[str]]:
    number = get_step_metadata().attempt
    if number == 1:
        raise RetryableError("busy", retry_after=retry_after)
    return number, []


@workflow(name="errors.busy")
async def waits(retry_after: Any) -> Any:
    return await busy(retry_after)


@pytest.mark.parametrize(
    "form", ["300ms", 0.3, timedelta(milliseconds=300), "a moment"], ids=lambda f: type(f).__name__
)
def test_c23_retry_after_is_the_least_delay_in_each_of_its_forms(engine, form):
    """Text, seconds, timedelta, datetime."""
    moment = datetime.now(UTC) + timedelta(milliseconds=300)
    run = waits.start(moment if form == "a moment" else form)
    settle(engine, run)

    assert run.result()[0] == 2
    (retrying,) = [event for event in run.events() if event.kind == "step_retrying"]
    (completed,) = [event for event in run.events() if event.kind == "step_completed"]
    assert completed.started_at >= retrying.due_at
    least = due_at(moment, 0) if form == "a moment" else retrying.started_at + 300_000
    assert retrying.due_at >= least


@pytest.mark.parametrize("invalid", ["soon", -1, datetime(2026, 1, 1), [1]], ids=str)
def test_an_invalid_retry_after_is_ignored_with_a_note(engine, invalid):
    """The step's own backoff applies, the attempt counts, and the error's note names the mistake."""
    run = waits.start(invalid)
    settle(engine, run)

    assert run.result()[0] == 2
    (retrying,) = [event for event in run.events() if event.kind == "step_retrying"]
    assert "retry_after was ignored" in retrying.error


@all_databases()
def test_c32_no_message_starts_an_attempt_before_its_time(engine):
    """Delivered early, and twice, it does nothing; when it is due it runs once."""
    run = waits.start("2s")
    drive(engine, run.id)
    attempt(engine, registry.steps[busy.name], Address(run.id, "r#1", 1), None)
    for _ in range(2):
        attempt(engine, registry.steps[busy.name], Address(run.id, "r#1", 2), None)
    drive(engine, run.id)

    assert kinds(run)[-2:] == ["step_created", "step_retrying"]
    with engine.store.begin() as tx:
        tx.execute(sa.update(steps).where(steps.c.run_id == run.id).values(not_before=0))
    settle(engine, run)
    assert run.result()[0] == 2


# What arrives.


class Declined(Exception):
    """An author's error, with arguments of its own."""

    def __init__(self, order: str, *, code: int) -> None:
        super().__init__(f"order {order} was declined")
        self.order = order
        self.code = code


def charge(order: str) -> None:
    try:
        ACTIONS["no such action"]
    except KeyError as error:
        declined = Declined(order, code=7)
        declined.add_note("asked twice")
        raise declined from error


@step(max_retries=0)
def pays(order: str) -> None:
    charge(order)


@workflow(name="errors.inspects")
async def inspects(order: str) -> Any:
    try:
        await pays(order)
    except Declined as error:
        told = (error.order, error.code, str(error), error.args, repr(error.__cause__), error.__notes__)
        return told, "".join(traceback.format_exception(error))
    return None


@workflow(name="errors.lets_pass")
async def lets_pass(order: str) -> Any:
    await pays(order)


@workflow(name="errors.wraps")
async def wraps(order: str) -> Any:
    try:
        await pays(order)
    except Declined as error:
        raise LookupError("nobody paid") from error


@all_databases()
def test_c26_c27_an_error_of_a_step_arrives_in_the_workflow_whole(engine):
    """Class, attributes, message, arguments, cause, notes; the last one says which step, after how many attempts."""
    run = inspects.start("o-1")
    settle(engine, run)

    (order, code, message, args, cause, notes), shown = run.result()
    assert (order, code, message, args) == ("o-1", 7, "order o-1 was declined", ("order o-1 was declined",))
    assert cause == "KeyError('no such action')"
    assert notes == ["asked twice", f"Step {pays.name} (r#1) failed after 1 attempt."]
    assert "KeyError: 'no such action'" in shown


@all_databases()
def test_c25_c26_an_error_that_nobody_catches_is_the_runs_with_its_chain_of_calls(engine):
    """The starter sees class, cause and note, and as text the calls that led to it in the step's process."""
    run = lets_pass.start("o-1")
    settle(engine, run)

    with pytest.raises(RunFailed, match="Declined: order o-1 was declined") as failed:
        run.result()

    cause = failed.value.__cause__
    assert (type(cause), cause.code, type(cause.__cause__)) == (Declined, 7, KeyError)
    assert cause.__notes__[-1].endswith("failed after 1 attempt.")
    for line in ("in charge", "in pays", "KeyError: 'no such action'", "direct cause"):
        assert line in failed.value.traceback
    assert describe.describe(engine, run.id)["error"] == "Declined: order o-1 was declined"


def test_c27_a_chain_raised_by_the_workflow_keeps_the_steps_error_as_its_cause(engine):
    """Across two processes: the step's, and the worker that replays."""
    run = wraps.start("o-1")
    settle(engine, run)

    with pytest.raises(RunFailed, match="LookupError: nobody paid") as failed:
        run.result()

    chain = failed.value.__cause__
    assert [type(chain), type(chain.__cause__), type(chain.__cause__.__cause__)] == [LookupError, Declined, KeyError]


@step(max_retries=1, retry_backoff=0)
def fails_oddly(how: str) -> None:
    if how == "argument":
        raise ValueError(print, {"lock": object()})
    if how == "words":
        raise Unspeakable
    raise type("Local", (Exception,), {})("of no module")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@workflow(name="errors.odd")
async def odd(how: str) -> str:
    try:
        await fails_oddly(how)
    except ValueError as error:
        return f"ValueError{error.args}"
    except StepFailed as error:
        return f"{error} after {error.attempts}" if "in fails_oddly" in error.traceback else "no traceback"
    return "no error"


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("argument", "ValueError('<built-in function print>', {'lock': "),
        ("words", "Unspeakable: (its __str__ raised RuntimeError) after 2"),
        ("class", "Local: of no module after 2"),
    ],
)
def test_c28_an_error_that_cannot_cross_as_it_is_fails_the_step_all_the_same(engine, how, told):
    """Arguments become text, an unknown class a StepFailed that tells the same; nothing hangs."""
    run = odd.start(how)
    settle(engine, run)

    assert run.result().startswith(told.partition("{")[0])
    assert kinds(run).count("step_retrying") == 1


@step
def fatal() -> None:
    raise FatalError("no use", {"code": 3})


@workflow(name="errors.fatal")
async def catches_fatal() -> Any:
    try:
        await fatal()
    except FatalError as error:
        return error.args


def test_c23_a_fatal_error_is_one_attempt_and_keeps_its_arguments(engine):
    """And the workflow may catch it."""
    run = catches_fatal.start()
    settle(engine, run)

    assert run.result() == ("no use", {"code": 3})
    assert "step_retrying" not in kinds(run)


@step(max_retries=1, retry_backoff=0)
def leaves(code: Any) -> None:
    sys.exit(code)


@workflow(name="errors.leaves")
async def leaves_its_process(code: Any) -> str:
    try:
        await leaves(code)
    except StepFailed as error:
        return f"{error} after {error.attempts}"
    return "no error"


@pytest.mark.parametrize("code", [0, 1, "a message"])
def test_c30_a_step_that_calls_sys_exit_has_failed(engine, code):
    """It does not end its worker, and is not tried for ever."""
    run = leaves_its_process.start(code)
    settle(engine, run)

    assert run.result() == f"SystemExit: {code} after 2"


def test_a_process_that_is_stopped_hands_its_attempt_back_uncounted(engine):
    """The end that a prefork child comes to on SIGTERM is no failure of the step."""
    run = leaves_its_process.start(-(256 - signal.SIGTERM))
    drive(engine, run.id)
    with pytest.raises(SystemExit):
        attempt(engine, registry.steps[leaves.name], Address(run.id, "r#1", 1), None)

    with engine.store.read() as tx:
        row = tx.execute(sa.select(steps.c.status, steps.c.attempt).where(steps.c.run_id == run.id)).one()
    assert tuple(row) == ("pending", 1)


@step(max_retries=0)
async def awaits_a_step() -> Any:
    return await rejects_nothing(1)  # type: ignore[misc]


@step
def rejects_nothing(n: int) -> int:
    return n


@workflow(name="errors.awaits_in_a_step")
async def awaits_in_a_step() -> Any:
    try:
        await awaits_a_step()
    except TypeError as error:
        return error.__notes__


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_step_that_awaits_a_step_is_told_what_to_do(engine):
    """In a step, a call of a step returns a value; awaiting it fails with the fix in a note."""
    run = awaits_in_a_step.start()
    settle(engine, run)

    assert any("so remove `await`" in note for note in run.result(timeout=20))
