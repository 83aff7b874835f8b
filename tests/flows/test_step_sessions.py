"""Transactional steps, on every database: what their session writes is committed with their result, or not at all."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, settle
from giving_up import found, here, rows, seen
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from trouble import refused, unacknowledged

from durable import (
    Request,
    Response,
    Run,
    create_webhook,
    get_step_metadata,
    heartbeat,
    set_attributes,
    step,
    step_session,
    workflow,
)
from durable.attempts import outcome
from durable.attempts.attempt import attempt
from durable.store import claimed_attempts
from durable.store.schema import requests
from durable.turns.drive import drive
from durable.web import record_request

pytestmark = all_databases()


class Base(DeclarativeBase):
    pass


class Entry(Base):
    """What the step writes: a row of the application's own."""

    __tablename__ = "ledger_of_test_step_sessions"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run: Mapped[str] = mapped_column(sa.String(64))
    what: Mapped[str] = mapped_column(sa.String(64), unique=True)


@pytest.fixture(autouse=True)
def table(engine: Any) -> None:
    Base.metadata.create_all(engine.store.engine)


def ledger(engine: Any, run: Run[Any]) -> list[str]:
    """What is committed."""
    with engine.store.read() as tx:
        query = sa.select(Entry.what).where(Entry.run == run.id).order_by(Entry.id)
        return [what.partition("/")[2] for what in tx.execute(query).scalars()]


def write(what: str) -> None:
    run_id = get_step_metadata().run_id
    step_session().add(Entry(run=run_id, what=f"{run_id}/{what}"))


@step(semantics="transactional", retry_backoff=0, max_retries=2)
def books(how: str) -> str:
    """Write a row, and end in some way."""
    number = get_step_metadata().attempt
    mine = here()
    mine.did.append(f"attempt {number}")
    write(f"row of attempt {number}")
    match how:
        case "raises once" if number == 1:
            step_session().flush()
            raise ConnectionError("after the write")
        case "does not cross":
            return object()  # type: ignore[return-value]
        case "commits":
            step_session().commit()
        case "commits the connection":
            step_session().connection().commit()
        case "closes":
            with step_session() as session:
                session.execute(sa.text("SELECT 1"))
        case "repeats" if number == 1:
            write("row of attempt 1")
        case "undoes":
            step_session().flush()
            step_session().rollback()
            write("another row")
        case "catches":
            session = step_session()
            session.flush()
            try:
                with session.begin_nested():
                    write("row of attempt 1")
                    session.flush()
            except IntegrityError:
                write("the rest")
        case "held up":
            step_session().flush()
            mine.begun.set()
            assert mine.gate.wait(10)
        case "speaks":
            set_attributes(phase="booked")
            heartbeat({"at": 1})
            write("after speaking")
    return f"done by {number}"


@workflow
async def books_it(how: str) -> str:
    return await books(how)


def run_through(engine: Any, how: str) -> Run[Any]:
    run = engine.start(books_it, how)
    settle(engine, run)
    return run


def test_what_the_session_wrote_is_there_with_the_result(engine):
    """One row, one attempt."""
    run = run_through(engine, "returns")

    assert run.result() == "done by 1"
    assert ledger(engine, run) == ["row of attempt 1"]


@pytest.mark.parametrize("how", ["raises once", "repeats"])
def test_a_failed_attempt_leaves_nothing(engine, how):
    """Of two attempts only the second one's row is there; a write that the database refuses is a failure too."""
    run = run_through(engine, how)

    assert run.result() == "done by 2"
    assert ledger(engine, run) == ["row of attempt 2"]


@pytest.mark.parametrize("how", ["does not cross", "commits", "commits the connection"])
def test_what_cannot_be_kept_is_refused_and_leaves_nothing(engine, how):
    """A result that does not cross; a commit of the author's own, however it is spelled."""
    run = run_through(engine, how)

    assert run.status == "failed"
    assert ledger(engine, run) == []
    (ended,) = [event for event in run.events() if event.kind == "step_failed"]
    assert "does not commit" in ended.error or how == "does not cross"


@pytest.mark.parametrize(
    ("how", "left"),
    [
        ("closes", ["row of attempt 1"]),
        ("undoes", ["another row"]),
        ("catches", ["row of attempt 1", "the rest"]),
        ("speaks", ["row of attempt 1", "after speaking"]),
    ],
)
def test_the_author_may_use_the_session_as_ever(engine, how, left):
    """Closing is left to durable; a rollback and a savepoint undo what they should; other calls do not wait for it."""
    run = run_through(engine, how)

    assert run.result() == "done by 1"
    assert ledger(engine, run) == left
    assert run.attributes == ({"phase": "booked"} if how == "speaks" else {})


def test_an_attempt_that_was_given_up_writes_nothing(engine):
    """Another attempt runs already: neither result nor rows of the first are there."""
    run = engine.start(books_it, "held up")
    drive(engine, run.id)
    the_step, address = found(engine, run, "books")
    running = threading.Thread(target=attempt, args=(engine, the_step, address, None))
    running.start()
    assert seen(run.id).begun.wait(10)
    if engine.store.dialect == "sqlite":
        # SQLite's one writer is the step's own transaction, so the attempt has ended before it can be given up.
        seen(run.id).gate.set()
        running.join(10)
    else:
        with engine.store.read() as tx:
            held = claimed_attempts.find(tx, run.id, address.op)
        assert outcome.give_up(engine, held) is not None
        seen(run.id).gate.set()
        running.join(10)
        assert ledger(engine, run) == []
    settle(engine, run)

    assert len(ledger(engine, run)) == 1
    assert run.result() in ("done by 1", "done by 2")


def test_a_commit_that_was_not_acknowledged_is_no_failure(engine):
    """It is applied, and its connection breaks: the claim says what became of it, and nothing is done again."""
    run = engine.start(books_it, "returns")
    drive(engine, run.id)
    the_step, address = found(engine, run, "books")
    # The first commit is the claim's.
    with unacknowledged(engine, 2) as lost:
        attempt(engine, the_step, address, None)
    settle(engine, run)

    assert lost
    assert run.result() == "done by 1"
    assert ledger(engine, run) == ["row of attempt 1"]
    assert seen(run.id).did == ["attempt 1"]


def test_a_commit_that_fails_is_a_failed_attempt(engine):
    """Nothing was applied, the connection is whole: all is rolled back, and the next attempt does it again."""
    run = engine.start(books_it, "returns")
    drive(engine, run.id)
    the_step, address = found(engine, run, "books")
    dialect = engine.store.engine.dialect
    # PostgreSQL claims in one statement, which needs no COMMIT.
    commits = iter(["outcome"] if engine.store.dialect == "postgresql" else ["claim", "outcome"])
    commit = dialect.do_commit

    def fail(connection: Any) -> None:
        if next(commits, None) == "outcome":
            raise dialect.dbapi.OperationalError("disk full")
        commit(connection)

    dialect.do_commit = fail
    try:
        attempt(engine, the_step, address, None)
    finally:
        del dialect.do_commit
    assert ledger(engine, run) == []
    settle(engine, run)

    assert run.result() == "done by 2"
    assert ledger(engine, run) == ["row of attempt 2"]


#: By run, makes it impossible to begin a transaction.
refusing: dict[str, Callable[[], AbstractContextManager[None]]] = {}


@step(semantics="transactional", max_retries=0)
def asks_again(how: str) -> str:
    """Get no session at first."""
    with refusing[get_step_metadata().run_id](), pytest.raises(OperationalError, match="database is locked"):
        step_session()
    if how == "asks again":
        heartbeat({"asks": "again"})
        write("row")
    return how


@workflow
async def asks_twice(how: str) -> str:
    return await asks_again(how)


@pytest.mark.parametrize("how", ["asks again", "goes without"])
def test_a_transaction_that_could_not_begin_leaves_no_connection(engine, how):
    """It is closed at once: what the step does then uses another one, which its own transaction has."""

    def refuse(_connection: Any) -> None:
        raise OperationalError("BEGIN", {}, OSError("database is locked"))

    @contextmanager
    def refused_begin() -> Iterator[None]:
        sa.event.listen(engine.store.engine, "begin", refuse)
        yield
        sa.event.remove(engine.store.engine, "begin", refuse)

    run = engine.start(asks_twice, how)
    drive(engine, run.id)
    refusing[run.id] = refused_begin
    pool = engine.store.engine.pool
    before = pool.checkedout()
    attempt(engine, *found(engine, run, "asks_again"), None)

    # The store itself may have kept one before.
    assert pool.checkedout() <= before
    settle(engine, run)
    assert run.result(timeout=0) == how
    assert ledger(engine, run) == (["row"] if how == "asks again" else [])


@pytest.mark.parametrize("how", ["deadlock", "serialization"])
def test_a_transaction_that_the_database_undid_is_a_failed_attempt(engine, how):
    """At the very last statement: the next attempt does it all again."""
    if engine.store.dialect == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    run = engine.start(books_it, "returns")
    drive(engine, run.id)
    with refused(engine, "DELETE FROM durable_steps", how) as hit:
        settle(engine, run)

    assert hit
    assert run.result() == "done by 2"
    assert ledger(engine, run) == ["row of attempt 2"]


@step(semantics="transactional", retry_backoff=0)
def answers(request: Request) -> str:
    """Write, answer, and fail the first time."""
    number = get_step_metadata().attempt
    write(f"answer of attempt {number}")
    won = request.respond_with(Response.text(f"attempt {number}"))
    if number == 1:
        raise ConnectionError("after the answer")
    return f"{won}"


@workflow
async def answers_one() -> str:
    return await answers(await create_webhook(respond_with="manual"))


def test_an_answer_goes_out_with_the_result(engine):
    """The first attempt's answer is undone with its rows: the sender gets that of the second."""
    run = engine.start(answers_one)
    settle(engine, run)
    token = run.hooks()[0]["token"]
    webhook = record_request.find_webhook(engine, token)
    assert webhook is not None
    record_request.accept_request(engine, webhook, Request(id=secrets.token_hex(9), data=b"the body"), holder=None)
    settle(engine, run)

    assert run.result() == "True"
    assert ledger(engine, run) == ["answer of attempt 2"]
    with engine.store.read() as tx:
        (body,) = tx.execute(sa.select(requests.c.answer_body).where(requests.c.run_id == run.id)).scalars()
    assert body == b"attempt 2"


@step
def plain() -> str:
    with pytest.raises(RuntimeError, match='@step\\(semantics="transactional"\\)') as caught:
        step_session()
    return str(caught.value)


@workflow
async def asks_in_vain() -> str:
    return await plain()


def test_elsewhere_there_is_no_such_session(engine):
    """In another step, and outside: the error names the fix."""
    run = engine.start(asks_in_vain)
    settle(engine, run)

    assert plain.name in run.result()
    with pytest.raises(RuntimeError, match="step_session\\(\\) was called outside a step"):
        step_session()
    with pytest.raises(RuntimeError, match="heartbeat\\(\\) was called outside a step"):
        heartbeat()


def test_without_a_session_it_is_recorded_as_any_other(engine):
    """Nothing is opened for a transactional step that writes nothing."""
    run = engine.start(writes_nothing)
    settle(engine, run)

    assert run.result() == "quiet"
    assert rows(engine, run) == []


@step(semantics="transactional")
def quiet() -> str:
    return "quiet"


@workflow
async def writes_nothing() -> str:
    return await quiet()
