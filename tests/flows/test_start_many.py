"""``start_many``: many runs in a few transactions, each as ``start`` would have started it."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, settle
from sqlalchemy.orm import Session

from durable import Durable, Run, RunConflict, SerializationError, start_many, workflow
from durable.client import start_many as many
from durable.store.schema import attributes, runs

pytestmark = all_databases()


@workflow
async def one_of_many(number: int, text: str = "") -> str:
    return f"{number}{text}"


@workflow
async def another_of_many(number: int) -> int:
    return number


def keys(name: str, count: int) -> list[str]:
    return [f"many/{name}/{number}" for number in range(count)]


def count_of(engine: Durable, name: str) -> int:
    with engine.store.read() as tx:
        found = sa.select(sa.func.count()).select_from(runs).where(runs.c.idempotency_key.like(f"many/{name}/%"))
        return int(tx.execute(found).scalar_one())


def results(engine: Durable, started: list[Run[Any]]) -> list[Any]:
    settle(engine, *started)
    return [run.result(0) for run in started]


def test_runs_come_in_the_order_of_their_arguments(engine, monkeypatch):
    """Tuples, lists and dicts are the arguments of a call; the batches change nothing."""
    monkeypatch.setattr(many, "BATCH", 2)
    started = start_many(one_of_many, [(1,), (2, "b"), [3], {"number": 4, "text": "d"}, (5,)])

    assert results(engine, started) == ["1", "2b", "3", "4d", "5"]


def test_a_key_starts_one_run(engine, monkeypatch):
    """A key that was used before, in this call or in another one, returns its run."""
    monkeypatch.setattr(many, "BATCH", 3)
    given = keys("once", 4)
    first = one_of_many.with_options(idempotency_key=given[2]).start(2)
    started = start_many(one_of_many, [(n,) for n in range(4)] + [(0,)], keys=[*given, given[0]])
    again = start_many(one_of_many, [(n,) for n in range(4)], keys=given)

    assert started[2] == first
    assert started[4] == started[0]
    assert again == started[:4]
    assert count_of(engine, "once") == 4
    assert results(engine, again) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("at", ["in this call", "before"])
def test_a_conflict_starts_nothing(engine, monkeypatch, at):
    """A key with other arguments is found before the first batch is written."""
    monkeypatch.setattr(many, "BATCH", 1)
    given = keys(at, 3)
    if at == "before":
        another_of_many.with_options(idempotency_key=given[2]).start(2)
    else:
        given[2] = given[0]

    with pytest.raises(RunConflict):
        start_many(one_of_many, [(0,), (1,), (2,)], keys=given)

    assert count_of(engine, at) == (1 if at == "before" else 0)


def test_a_key_that_another_process_uses_meanwhile_starts_one_run(engine, monkeypatch):
    """The batch is written again, and finds that run."""
    given = keys("raced", 3)
    existing, other = many._existing, []

    def use_key_after(*args: Any) -> Any:
        found = existing(*args)
        if len(other) < 1 and len(args[2]) == 3 and calls.append(1) is None and len(calls) == 2:
            if engine.store.dialect == "sqlite":
                return found  # one writer at a time: nobody can
            other.append(one_of_many.with_options(idempotency_key=given[1]).start(1))
        return found

    calls: list[int] = []
    monkeypatch.setattr(many, "_existing", use_key_after)
    started = start_many(one_of_many, [(0,), (1,), (2,)], keys=given)

    assert other in ([], [started[1]])
    assert count_of(engine, "raced") == 3
    assert results(engine, started) == ["0", "1", "2"]


BAD: list[tuple[Any, Any, type[Exception], str]] = [
    ([1], None, TypeError, r"args\[0\] is 1"),
    ([(1,), ()], None, TypeError, r"args\[1\] does not fit"),
    ([(1,), (object(),)], None, SerializationError, r"args\[1\]\.number"),
    ([(1,), (2,)], ["many/bad/1"], ValueError, "2 calls and 1 keys"),
    ([(1,)], ["many/bad/ "], ValueError, "ends with a blank"),
]


@pytest.mark.parametrize(("calls", "given", "error", "text"), BAD)
def test_bad_input_starts_nothing(engine, calls, given, error, text):
    """The error names the item."""
    with engine.store.read() as tx:
        before = tx.execute(sa.select(sa.func.count()).select_from(runs)).scalar_one()

    with pytest.raises(error, match=text):
        start_many(one_of_many, calls, keys=given)

    with engine.store.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(runs)).scalar_one() == before


def test_options_are_for_all_runs(engine):
    """Queue, priority, delay and attributes; what is for one run is refused."""
    delayed = one_of_many.with_options(countdown="1h", priority=3, attributes={"batch": "may"})
    started = start_many(delayed, [(1,), (2,)])
    settle(engine, *started)

    assert [run.status for run in started] == ["pending"] * 2
    with engine.store.read() as tx:
        ids = [run.id for run in started]
        rows = tx.execute(sa.select(runs.c.priority, runs.c.not_before - runs.c.created_at).where(runs.c.id.in_(ids)))
        assert [tuple(row) for row in rows] == [(3, 3_600_000_000)] * 2
        found = tx.execute(sa.select(attributes.c.value).where(attributes.c.run_id.in_(ids)))
        assert found.scalars().all() == ["may"] * 2
    with pytest.raises(TypeError, match="idempotency_key is for one run"):
        start_many(one_of_many.with_options(idempotency_key="x"), [(1,)])


@pytest.mark.parametrize("commits", [True, False])
def test_in_the_callers_session(engine, monkeypatch, commits):
    """The runs exist if and only if the caller's transaction is committed; then their messages are sent."""
    monkeypatch.setattr(many, "BATCH", 2)
    sent: list[str] = []
    monkeypatch.setattr(engine.dispatch, "send_first_turns", lambda rows, _: sent.extend(row.run_id for row in rows))
    name = f"session-{commits}"
    theirs = sa.create_engine(engine.store.url)
    with Session(theirs) as session:
        started = start_many(one_of_many, [(n,) for n in range(5)], keys=keys(name, 5), session=session)
        assert sent == []
        if commits:
            session.commit()
        else:
            session.rollback()
    theirs.dispose()

    assert count_of(engine, name) == (5 if commits else 0)
    assert sent == ([run.id for run in started] if commits else [])
    if commits:
        assert results(engine, started) == ["0", "1", "2", "3", "4"]


def test_nothing_is_started_for_nothing(engine):
    """An empty list is fine."""
    assert start_many(one_of_many, []) == []
    assert start_many(one_of_many, [], keys=[]) == []
