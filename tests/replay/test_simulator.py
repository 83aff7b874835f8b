"""The simulator, in which a workflow is tested without time, processes or HTTP."""

from __future__ import annotations

from typing import Any

from simulator import SECOND, START, Simulator

from durable import Request, create_hook, create_webhook, events, now, race, sleep, workflow


@workflow(name="simulated.patient")
async def patient() -> list[Any]:
    began = now()
    await sleep("30d")
    payload = await create_hook(token="ready")
    request: Request = await create_webhook()
    heard = await race(create_hook(token="never"), sleep("1h"))
    return [(now() - began).days, payload, request.json(), heard]


def test_c105_a_run_of_a_month_takes_no_time():
    """Until it sleeps, until it has its hook; woken, resumed, posted to: each by a call, and no clock is read."""
    sim = Simulator(patient).turn()
    assert [event.due_at for event in sim.open(events.WaitCreated)] == [START + 30 * 86400 * SECOND]

    sim.wait(30 * 86400)
    assert sim.token() == "ready"
    sim.send("go").post({"paid": True}, sim.open(events.HookCreated)[-1].token)
    sim.wait(3600)

    assert sim.result == [30, "go", {"paid": True}, None]
