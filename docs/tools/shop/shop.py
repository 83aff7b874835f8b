"""The application on the screenshots: orders, their payments and deliveries, invoices, refunds and reports."""

from __future__ import annotations

import os
import random
import time
from asyncio import gather
from typing import Any

from celery import Celery

from durable import (
    Durable,
    Request,
    create_hook,
    create_webhook,
    get_step_metadata,
    set_attributes,
    sleep,
    step,
    workflow,
)

celery = Celery("shop")
engine = Durable(celery)

#: The second release asks for a step that the runs of the first have not recorded.
RELEASE = os.environ.get("SHOP_RELEASE", "1")


class PaymentDeclined(Exception):
    """Raised when the bank refuses a card."""


def works(least: float, most: float) -> None:
    """Take some time, as a call to a real service does."""
    time.sleep(random.uniform(least, most))


@step
def reserve_stock(order_id: str, items: int) -> dict[str, Any]:
    works(0.05, 0.15)
    return {"order": order_id, "items": items, "warehouse": "Leipzig"}


@step
def check_fraud(order_id: str) -> float:
    works(0.3, 0.5)
    return 0.02


@step
def print_label(order_id: str) -> str:
    works(0.2, 0.3)
    return f"label-{order_id}.pdf"


@step(max_retries=3, retry_backoff=0.3, retry_jitter=False)
def request_payment(order_id: str, amount: float, webhook_url: str) -> str:
    works(0.05, 0.1)
    if get_step_metadata().attempt < 3:
        raise ConnectionError("payments.example answered 503")
    return f"pay_{order_id}"


@step
def confirm_payment(request: Request) -> str:
    works(0.02, 0.05)
    request.respond_with({"received": True})
    return str(request.json()["type"])


@step
def pick(order_id: str) -> int:
    works(0.1, 0.3)
    return 3


@step
def pack(order_id: str) -> str:
    works(0.3, 0.5)
    return "box M"


@step
def send_email(to: str, template: str) -> bool:
    works(0.03, 0.08)
    return True


@step(max_retries=1, retry_backoff=0.2, retry_jitter=False)
def pay_back(order_id: str, amount: float) -> str:
    works(0.05, 0.1)
    raise PaymentDeclined(f"The bank refused to pay back {amount:.2f} EUR for {order_id}: the card has expired")


@step
def count_orders(shop: str) -> int:
    works(0.3, 2.5)
    return random.randint(50, 500)


@step
def reserve_number(order_id: str) -> int:
    return int(order_id.removeprefix("order-"))


@step
def write_invoice(order_id: str) -> str:
    works(0.05, 0.1)
    return f"invoice-{order_id}.pdf"


@step
def add_tax_number(order_id: str) -> str:
    return "DE811234567"


@step
def import_products(supplier: str) -> int:
    works(0.02, 0.2)
    return random.randint(20, 900)


@workflow
async def delivery(order_id: str) -> dict[str, Any]:
    set_attributes(order=order_id)
    picked = await pick(order_id)
    box, label = await gather(pack(order_id), print_label(order_id))
    return {"picked": picked, "box": box, "label": label}


@workflow
async def order(order_id: str, customer: str, amount: float) -> dict[str, Any]:
    set_attributes(order=order_id, customer=customer)
    reserved, risk = await gather(reserve_stock(order_id, 3), check_fraud(order_id))
    webhook = create_webhook(respond_with="manual")
    payment = await request_payment(order_id, amount, webhook.url)
    async for request in webhook:
        if await confirm_payment(request) == "payment.succeeded":
            break
    await sleep("1s")
    delivered, _ = await gather(delivery(order_id), send_email(f"{customer}@example.com", "order-paid"))
    return {"payment": payment, "risk": risk, "reserved": reserved, "delivered": delivered}


@workflow
async def refund(order_id: str, customer: str, amount: float) -> str:
    set_attributes(order=order_id, customer=customer)
    return await pay_back(order_id, amount)


@workflow
async def invoice(order_id: str, customer: str) -> str:
    set_attributes(order=order_id, customer=customer)
    if RELEASE == "2":
        await add_tax_number(order_id)
    await reserve_number(order_id)
    await create_hook(token=f"shipped:{order_id}")
    return await write_invoice(order_id)


@workflow
async def report(day: str) -> int:
    return sum(await gather(*(count_orders(shop) for shop in ("Berlin", "Lyon", "Porto", "Turin", "Ghent", "Malmö"))))


@workflow
async def review_reminder(order_id: str, customer: str) -> None:
    set_attributes(order=order_id, customer=customer)
    await sleep("14d")
    await send_email(f"{customer}@example.com", "review")


@workflow
async def catalogue(supplier: str) -> int:
    set_attributes(supplier=supplier)
    return await import_products(supplier)
