"""Statements for many rows on PostgreSQL: one text, however many rows there are, and nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import sqlalchemy as sa

from durable import Durable, events
from durable.events import Event
from durable.store import Run, SendTimes, run_log, runs, steps, turns
from durable.store.statements import array

pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)

ODD = [
    "",
    "plain",
    "NULL",
    "null",
    'say "hi"',
    "back\\slash",
    "\\",
    "{a,b}",
    "a,b",
    " blanks ",
    "line\nend\t",
    "é€😀",
    None,
]


def test_an_array_arrives_as_it_was(engine):
    """Quotes, braces, blanks, backslashes, the word NULL and the absence of a value are told apart."""
    texts = sa.text("SELECT CAST(:given AS text[])")
    numbers = sa.text("SELECT CAST(:given AS bigint[])")
    with engine.store.read() as tx:
        assert tx.execute(texts, {"given": array(ODD)}).scalar_one() == ODD
        assert tx.execute(numbers, {"given": array([2**62, -1, None])}).scalar_one() == [2**62, -1, None]
        assert tx.execute(texts, {"given": array([])}).scalar_one() == []


def make_run(engine: Durable, run_id: str) -> Run:
    """A run that runs, without steps or inbox items."""
    nothing = dict.fromkeys(name for name in Run.__dataclass_fields__ if name not in ("turn_tries", "turn_tried"))
    known = {"id": run_id, "name": "w", "status": "running", "turn": 1, "seq": 0, "last_at": 0, "digest": ""}
    run = Run(**{**nothing, **known, "created_at": 1, "started_at": 1})
    with engine.store.begin() as tx:
        runs.create(tx, run)
    return run


def add_items(engine: Durable, run: Run, count: int) -> list[int]:
    """The ids of new inbox items."""
    with engine.store.begin() as tx:
        for number in range(count):
            over = events.WaitCompleted(at=1, op_id=f"w#{number}")
            run_log.post(tx, run.id, over, SendTimes(1, 1))
        return [item.id for item in run_log.read_inbox(tx, run.id)]


def ends_of_waits(run: Run, count: int) -> list[Event]:
    """So many new events for the run's log."""
    return [events.WaitCompleted(seq=run.seq + n, at=1, op_id=f"w#{run.seq + n}") for n in range(1, count + 1)]


@contextmanager
def said(engine: Durable) -> Iterator[list[str]]:
    """The statements that are executed within."""
    texts: list[str] = []

    def note(_connection: object, _cursor: object, text: str, *_more: object) -> None:
        texts.append(text)

    sa.event.listen(engine.store.engine, "before_cursor_execute", note)
    try:
        yield texts
    finally:
        sa.event.remove(engine.store.engine, "before_cursor_execute", note)


def test_a_plain_turn_is_one_statement_of_one_text_however_much_it_takes_in(engine):
    """A turn with 1, with 8 and with 300 outcomes are the same text, executed once each."""
    run, texts = make_run(engine, "sizes"), []
    for count in (1, 8, 300):
        drained, new = add_items(engine, run, count), ends_of_waits(run, count)
        after = replace(run, turn=run.turn + 1, seq=run.seq + count)
        with said(engine) as statements:
            turn = turns.PlainTurn(
                before=run, after=after, new=new, drained=drained, sending=SendTimes(None, None), worker_id="me"
            )
            assert turns.commit(engine.store, turn)
        texts += statements
        run = after

    with engine.store.read() as tx:
        assert [event.seq for event in run_log.read(tx, run.id)] == list(range(1, 310))
        assert run_log.read_inbox(tx, run.id) == []
    assert len(texts) == 3
    assert len(set(texts)) == 1


def test_a_turn_that_ends_the_run_leaves_no_item_behind(engine):
    """An item that it has not taken in keeps it from being written; nothing of it is."""
    run = make_run(engine, "ends")
    first = add_items(engine, run, 1)
    add_items(engine, run, 1)
    after = replace(run, turn=2, seq=1, status="completed", completed_at=1)
    turn = turns.PlainTurn(
        before=run, after=after, new=ends_of_waits(run, 1), drained=first, sending=SendTimes(None, None), worker_id="me"
    )

    assert not turns.commit(engine.store, turn)

    with engine.store.read() as tx:
        assert runs.find(tx, run.id) == run
        assert len(run_log.read_inbox(tx, run.id)) == 2


def test_steps_are_created_by_one_statement_of_one_text(engine):
    """One step and a hundred are the same text, executed once; each row is as it was given."""
    run, texts = make_run(engine, "steps"), []
    for count in (1, 100):
        rows = [
            {
                "run_id": run.id,
                "op_id": f"s#{count}.{n}",
                "name": 'a "b", {c}',
                "not_before": n,
                "queue": None,
                "offered_seq": None,
            }
            for n in range(count)
        ]
        with said(engine) as statements, engine.store.begin() as tx:
            steps.create(tx, rows, SendTimes(2**40, None))
        texts += [text for text in statements if "durable_steps" in text]

    with engine.store.read() as tx:
        found = tx.execute(
            sa.text(
                "SELECT name, queue, attempt, status, next_send_at, sent_at, sends FROM durable_steps"
                " WHERE run_id = :run"
            ),
            {"run": run.id},
        ).all()
    assert set(map(tuple, found)) == {('a "b", {c}', None, 1, "pending", 2**40, None, 0)}
    assert (len(found), len(texts), len(set(texts))) == (101, 2, 1)
