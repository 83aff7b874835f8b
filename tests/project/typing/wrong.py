"""Mistakes that a type checker has to find: one in each line that ends with the comment ``wrong``, and no other."""

from __future__ import annotations

from dataclasses import dataclass

from durable import (
    Response,
    Run,
    Stream,
    Value,
    acreate_schedule,
    astart,
    create_webhook,
    define_hook,
    emit,
    publish,
    race,
    sleep,
    start,
    step,
    workflow,
)


@dataclass
class Order:
    id: str


@dataclass
class Approval:
    by: str


approvals = define_hook(Approval)
prices = define_hook(Order, name="prices", reply=int)


@step
def charge(order: Order) -> int:
    return len(order.id)


@step(max_retries="three")  # wrong
def mail(to: str) -> None: ...


@step
async def fetch(url: str) -> bytes:
    return url.encode()


@workflow
async def flow(order_id: str) -> str:
    await charge(Order(order_id))
    await charge(order_id)  # wrong
    await charge()  # wrong
    await charge(Order(order_id), 1)  # wrong
    await charge(ordr=Order(order_id))  # wrong
    text: str = await charge(Order(order_id))  # wrong
    body: str = await fetch("https://example.org")  # wrong
    approval: str = await approvals.create()  # wrong
    create_webhook(respond_with="by hand")  # wrong
    create_webhook(timeout=[1])  # wrong
    webhook = create_webhook()
    url: int = webhook.url  # wrong
    async for request in webhook:
        request.jsn()  # wrong
    await sleep([1])  # wrong
    winner: str = await race(charge(Order(order_id)), fetch("https://example.org"))  # wrong
    number: int = await flow(order_id)  # wrong
    await flow(1)  # wrong
    return f"{text}{body}{approval}{url}{winner}{number}"


@workflow  # wrong
def not_async(order_id: str) -> str:
    return order_id


def starting() -> None:
    start(flow)  # wrong
    start(flow, 1)  # wrong
    flow.start("o", urgent=True)  # wrong
    flow.delay(order="o")  # wrong
    flow.with_options(countdown=1).start(1)  # wrong
    number: int = flow.start("o").result()  # wrong
    run: Run[int] = start(flow, "o")  # wrong
    start(charge, Order("o"))  # wrong
    charge.run("o")  # wrong
    Response.json({}, status="200")  # wrong
    publish(Value("total", int), "three")  # wrong
    emit(Stream("totals", int), "three")  # wrong
    emit(Stream("totals", int), 3, keep=5)  # wrong
    emit("totals", 3, keep="all")  # wrong
    print(number, run)


async def starting_in_an_event_loop() -> None:
    await flow.astart(1)  # wrong
    await astart(flow)  # wrong
    number: int = await (await flow.astart("o")).aresult()  # wrong
    await acreate_schedule("nightly", flow, cronn="0 3 * * *")  # wrong
    print(number)


async def answer() -> None:
    question = await prices.create()
    question.reply("much")  # wrong
    name: str = question.payload  # wrong
    price: str = prices.ask("token", Order(name))  # wrong
    approvals.ask("token", Approval(price))  # wrong
