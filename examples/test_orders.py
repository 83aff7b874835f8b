"""How an application tests its workflows: no broker, no server, no waiting."""

import pytest

from durable import Request, create_webhook, sleep, step, workflow
from durable.testing import crash_everywhere

pytest_plugins = ["durable.testing.plugin"]


@step
def confirm(request: Request) -> str:
    request.respond_with({"received": True})
    return str(request.json()["state"])


@step
def remind(order_id: str) -> None:
    """Send a letter."""


@workflow
async def order(order_id: str) -> str:
    webhook = create_webhook(respond_with="manual")
    await sleep("30d")
    await remind(order_id)
    return await confirm(await webhook)


@workflow
async def reminder(order_id: str) -> str:
    await sleep("30d")
    await remind(order_id)
    return "reminded"


def test_a_customer_is_reminded_after_a_month(durable_env):
    letters = []
    run = durable_env.start(order, "o-1")

    with durable_env.replace(remind, letters.append):
        durable_env.advance("31d")
    assert letters == ["o-1"]

    answer = durable_env.post(run.hooks()[0]["url"], json={"state": "paid"})
    assert answer.json == {"received": True}
    assert run.result(timeout=0) == "paid"


def test_wherever_it_crashes_the_customer_is_reminded():
    report = crash_everywhere(reminder, "o-1")

    assert report.played > 30


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
