"""More news than one turn drains."""

from __future__ import annotations

from driving import kinds, settle

from durable import create_hook, events, workflow
from durable.store import run_log
from durable.store.outbox import SendTimes


@workflow(name="many.first_one")
async def first_one() -> int:
    return await create_hook(token="many")


def test_c53_every_payload_accepted_before_the_end_is_in_the_log(engine):
    """I1: a run that ends with its first payload keeps the thousand others that were acknowledged."""
    run = first_one.start()
    settle(engine, run)
    sent = run_log.TURN_LIMIT + 5
    with engine.store.begin() as tx:
        for number in range(sent):
            news = events.HookReceived(at=engine.store.now(), op_id="r#1", payload=str(number))
            run_log.post(tx, run.id, news, SendTimes(0, None))

    settle(engine, run)

    assert run.result(timeout=1) == 0
    assert kinds(run).count("hook_received") == sent
    assert kinds(run)[-1] == "run_completed"
