"""An attempt that was given up can write nothing any more, on every database: each of its writes tries in vain."""

from __future__ import annotations

import secrets
import signal
from contextlib import nullcontext
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, settle
from giving_up import TIMEOUT_SECS, attempting, here, rows, seen

from durable import AttemptLost, Request, create_webhook, get_step_metadata, heartbeat, set_attributes, step, workflow
from durable.attempts import outcome
from durable.store import claimed_attempts
from durable.store.schema import requests, steps
from durable.turns.drive import drive
from durable.web import record_request

pytestmark = all_databases()


@step(retry_backoff=0)
def held_up(request: Request, how: str) -> str:
    """Do one thing after the test has taken the attempt's claim; the next attempt answers and returns."""
    mine = here()
    if get_step_metadata().attempt > 1:
        request.respond_with("of the second")
        return "of the second"
    mine.begun.set()
    assert mine.gate.wait(TIMEOUT_SECS)
    match how:
        case "respond":
            mine.did.append(request.respond_with("of the first"))
        case "set_attributes":
            set_attributes(phase="of the first")
        case "heartbeat":
            with pytest.raises(AttemptLost):
                heartbeat("of the first")
        case "raise":
            raise ConnectionError("of the first")
        case "release":
            raise SystemExit(-(256 - signal.SIGTERM))  # as billiard ends a child
    return "of the first"


@workflow
async def asks(how: str) -> str:
    return await held_up(await create_webhook(respond_with="manual"), how)


@pytest.mark.parametrize("how", ["respond", "set_attributes", "heartbeat", "return", "raise", "release"])
def test_an_attempt_that_was_given_up_writes_nothing(engine, how):
    """A process that was paused and taken for dead goes on: only the second attempt's row, answer and result count."""
    run = engine.start(asks, how)
    settle(engine, run)
    webhook = record_request.find_webhook(engine, run.hooks()[0]["token"])
    record_request.accept_request(engine, webhook, Request(id=secrets.token_hex(9), data=b""), holder=None)
    drive(engine, run.id)
    with pytest.raises(SystemExit) if how == "release" else nullcontext(), attempting(engine, run, "held_up"):
        take_away(engine, run)

    (row,) = rows(engine, run)
    assert (row.attempt, row.status, row.heartbeat, row.claim) == (2, "pending", None, None)
    assert seen(run.id).did == ([False] if how == "respond" else [])
    settle(engine, run)
    assert run.result() == "of the second"
    assert run.attributes == {}
    assert [kinds(run).count(kind) for kind in ("step_retrying", "step_completed", "step_failed")] == [1, 1, 0]
    with engine.store.read() as tx:
        query = sa.select(requests.c.answer_body).where(requests.c.run_id == run.id)
        assert tx.execute(query).scalars().all() == [b"of the second"]


def take_away(engine: Any, run: Any) -> None:
    """Give up the attempt, as the sweep does when its process seems dead."""
    with engine.store.read() as tx:
        op_id = tx.execute(sa.select(steps.c.op_id).where(steps.c.run_id == run.id)).scalar_one()
        held = claimed_attempts.find(tx, run.id, op_id)
    assert outcome.give_up(engine, held) is not None
