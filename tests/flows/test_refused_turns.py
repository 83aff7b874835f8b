"""A turn that the database refuses to store is not repeated for ever: its run is blocked, with the reason."""

from __future__ import annotations

import pytest
from driving import settle
from trouble import refused

from durable import step, workflow
from durable.client import describe, operate
from durable.turns.drive import drive

pytestmark = pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)


@step(name="refused.note")
def note(text: str) -> str:
    return text


@workflow(name="refused.notes")
async def notes() -> str:
    return await note("noted")


@pytest.fixture
def manner():
    return {"continuation": 0, "replay_cache": 0}


@pytest.mark.parametrize("how", ["too long", "too big"])
def test_a_refused_turn_blocks_its_run_after_three_tries(engine, how, caplog):
    """Each try raises nothing; the reason has the database's words, and a retry has three tries of its own."""
    run = notes.start()
    with refused(engine, "INSERT INTO durable_steps", how, always=True) as tries:
        for number in range(5):
            assert run.status == ("blocked" if number >= 3 else "pending")
            drive(engine, run.id)
    assert len(tries) == 3
    assert run.status == "blocked"
    assert how in str(describe.describe(engine, run.id)["error"])
    assert "2 of 3 tries" in caplog.text

    operate.retry(engine, run.id)
    settle(engine, run)
    assert run.result() == "noted"


def test_a_conflict_blocks_nothing_however_often(engine):
    """The database has undone the turn for the sake of another transaction."""
    run = notes.start()
    with refused(engine, "INSERT INTO durable_steps", "serialization", always=True) as tries:
        for _ in range(3):
            drive(engine, run.id)
    assert len(tries) > 20

    settle(engine, run)
    assert run.result() == "noted"
