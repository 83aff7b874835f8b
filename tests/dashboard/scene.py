"""Runs in every state, on one engine: what the tests of the dashboard look at, and its screenshots."""

from __future__ import annotations

from asyncio import gather
from dataclasses import dataclass
from typing import Any

from driving import settle, settle_family

from durable import (
    Durable,
    Run,
    create_hook,
    create_webhook,
    set_attributes,
    sleep,
    step,
    workflow,
)


class PaymentDeclined(Exception):
    """What a payment provider says."""


@step(name="scene.reserve")
def reserve(order_id: str) -> dict[str, Any]:
    return {"order": order_id, "items": 3}


@step(name="scene.charge", max_retries=2, retry_backoff=0.001, retry_jitter=False)
def charge(order_id: str, amount: float) -> str:
    if amount > 900:
        raise PaymentDeclined(f"card of {order_id} was declined")
    return f"charge-{order_id}"


@step(name="scene.send_email")
def send_email(to: str) -> bool:
    return True


@step(name="scene.ship", queue="warehouse")
def ship(order_id: str) -> str:
    return f"parcel-{order_id}"


@workflow(name="scene.order")
async def order(order_id: str, amount: float = 10.0, express: bool = False) -> dict[str, Any]:
    set_attributes(customer="acme", order=order_id)
    reserved = await reserve(order_id)
    charged = await charge(order_id, amount)
    await gather(send_email("ada@example.com"), send_email("shop@example.com"))
    return {"reserved": reserved, "charged": charged}


@workflow(name="scene.reminder")
async def reminder(order_id: str) -> None:
    await sleep("30d")
    await send_email(order_id)


@workflow(name="scene.approval")
async def approval(token: str) -> Any:
    return await create_hook(token=token)


@workflow(name="scene.payment")
async def payment(order_id: str) -> str:
    webhook = create_webhook()
    async for request in webhook:
        return request.text()
    return ""


@workflow(name="scene.delivery")
async def delivery(order_id: str) -> Any:
    return await order(order_id, 20.0)


@workflow(name="scene.warehouse")
async def warehouse(order_id: str) -> str:
    return await ship(order_id)


@dataclass
class Scene:
    """The runs, by what they show."""

    completed: Run[Any]
    failed: Run[Any]
    sleeping: Run[Any]
    waiting: Run[Any]
    listening: Run[Any]
    parent: Run[Any]
    pending: Run[Any]
    cancelled: Run[Any]


def make(engine: Durable) -> Scene:
    """Start the runs and take each as far as it goes."""
    scene = Scene(
        completed=engine.start(order, "order-1", 42.5),
        failed=engine.start(order, "order-2", 999.0),
        sleeping=engine.start(reminder, "order-3"),
        waiting=engine.start(approval, "approve-order-4"),
        listening=engine.start(payment, "order-5"),
        parent=engine.start(delivery, "order-6"),
        pending=engine.start(reminder, "order-7"),
        cancelled=engine.start(reminder, "order-8"),
    )
    started = [scene.completed, scene.failed, scene.sleeping, scene.waiting, scene.listening]
    settle(engine, *started, scene.cancelled)
    settle_family(engine, scene.parent)
    scene.cancelled.cancel("customer called")
    settle(engine, scene.cancelled)
    return scene
