"""Programs as users write them.  A type checker has nothing to say about this file; each ``assert_type`` holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any, TypedDict, assert_type
from uuid import UUID

from sqlalchemy.orm import Session

from durable import (
    Question,
    Request,
    Response,
    Run,
    StepTimeout,
    Stream,
    Value,
    acreate_schedule,
    alist_runs,
    aresume_hook,
    astart,
    close_stream,
    create_hook,
    create_webhook,
    define_hook,
    emit,
    get_run,
    get_step_metadata,
    get_workflow_metadata,
    heartbeat,
    now,
    publish,
    race,
    random,
    resume_hook,
    sleep,
    start,
    step,
    step_session,
    uuid4,
    workflow,
)


@dataclass
class Order:
    id: str
    total: int


Answer = int | str | None | dict[str, str]


class Decision(TypedDict):
    by: str


decisions = define_hook(Decision)
prices = define_hook(Order, name="prices", reply=int)
either = define_hook(Order, name="either", reply=int | None)


@step
def charge(order: Order, *, currency: str = "EUR") -> int:
    return order.total


@step(max_retries=5, retry_backoff=0.5, timeout="10m", queue="mail")
async def mail(to: str) -> bool:
    return bool(to)


@step(name="vendor.submit")
def submit(document: str, url: str) -> None: ...


@step(semantics="at_most_once")
def pay(amount: int) -> str:
    heartbeat()
    heartbeat({"done": amount})
    return str(amount)


@step(semantics="transactional", timeout=30)
def book(amount: int) -> int:
    assert_type(step_session(), Session)
    assert_type(get_step_metadata().heartbeat, Any)
    return amount


@prices.validator
def has_an_id(order: Order) -> None:
    assert_type(has_an_id(order), None)


@step
def reply(question: Question[Order, int]) -> bool:
    assert_type(question.payload, Order)
    return question.reply(question.payload.total)


async def replies() -> None:
    """A question has the types of its hook, in the workflow and in a step."""
    async for question in prices.create(token="prices"):
        assert_type(question, Question[Order, int])
        assert_type(question.reply(3), bool)
        assert_type(await reply(question), bool)


def ask() -> None:
    """``ask`` returns what the hook declares; without a type, ``resume_hook`` returns anything with a reply."""
    assert_type(prices.ask("token", Order("o", 1), timeout="5s", wait="1s"), int)
    assert_type(either.ask("token", Order("o", 1)), Any)
    assert_type(resume_hook("token", 1, reply=True, timeout="5s"), Any)
    assert_type(resume_hook("token", 1, reply=False), Run[Any])


def resolve(run: Run[Any]) -> None:
    assert_type(run.resolve(result={"any": "value"}), str)
    assert_type(run.resolve(fail="why", step="r#1"), str)


@step
def answer(request: Request) -> dict[str, str]:
    assert_type(request.respond_with(Response.json({"ok": True})), bool)
    assert_type(get_step_metadata().attempt, int)
    return {"kind": "answered"}


async def steps() -> None:
    """A call of a step is awaited for what its function returns, whether that is a ``def`` or an ``async def``."""
    assert_type(await charge(Order("o", 1)), int)
    assert_type(await charge(order=Order("o", 1), currency="CHF"), int)
    assert_type(await mail("a@example.org"), bool)
    assert_type(await submit("d", "https://example.org"), None)
    assert_type(charge(Order("o", 1)), Awaitable[int])
    assert_type(await pay(1), str)
    assert_type(await book(1), int)
    try:
        await mail("b@example.org")
    except StepTimeout as error:
        assert_type(error.attempts, int)
    assert_type(await asyncio.gather(charge(Order("o", 1)), mail("b")), tuple[int, bool])
    assert_type(await asyncio.wait_for(mail("b"), timeout=10), bool)


def plain_functions() -> None:
    """``run`` is the function itself, with its own type."""
    assert_type(charge.run(Order("o", 1)), int)
    sending = assert_type(mail.run("a"), Coroutine[Any, Any, bool])
    ordering = assert_type(order_flow.run("o"), Coroutine[Any, Any, str])
    sending.close()
    ordering.close()


@workflow
async def order_flow(order_id: str, urgent: bool = False) -> str:
    assert_type(now(), datetime)
    assert_type(random(), Random)
    assert_type(uuid4(), UUID)
    assert_type(get_workflow_metadata().run_id, str)
    await sleep("1h")
    return order_id


@workflow(queue="slow", priority=3)
async def parent_flow(order_id: str) -> int:
    assert_type(await order_flow(order_id), str)
    assert_type(await order_flow(order_id, urgent=True), str)
    return 1


async def races() -> None:
    """A race has the type of each of its runners."""
    order = Order("o", 1)
    assert_type(await race(charge(order), charge(order)), int)
    assert_type(await race(charge(order), order_flow("o")), int | str)
    assert_type(await race(charge(order), order_flow("o"), sleep(5)), int | str | None)
    assert_type(await race(charge(order), order_flow("o"), sleep(5), answer(Request("POST", "/"))), Answer)
    assert_type(await race(charge(order), sleep(5)), int | None)
    assert_type(await race(*[charge(order) for _ in range(3)]), int)


async def hooks() -> None:
    """A defined hook gives payloads of its type, a webhook requests, any other hook anything."""
    hook = decisions.create(token="order:1")
    assert_type(await hook, Decision)
    async for decision in hook:
        assert_type(decision, Decision)
    assert_type(hook.token, str)
    assert_type(await hook.get_conflict(), str | None)
    assert_type(await create_hook(), Any)
    webhook = create_webhook(respond_with="manual", methods=["GET", "POST"], timeout="20s")
    assert_type(webhook.url, str)
    assert_type(await webhook, Request)
    async for request in webhook:
        assert_type(await answer(request), dict[str, str])
    with decisions.create() as listening:
        assert_type(await race(listening, sleep("5s")), Decision | None)


def starting() -> None:
    """However a run is started, its result has the workflow's type."""
    assert_type(start(order_flow, "o"), Run[str])
    assert_type(start(order_flow, "o", urgent=True).result(), str)
    assert_type(order_flow.start("o").result(timeout=5), str)
    assert_type(order_flow.delay("o"), Run[str])
    assert_type(order_flow.with_options(idempotency_key="k", countdown="5m").start("o"), Run[str])
    assert_type(order_flow.apply_async(("o",), queue="slow"), Run[str])
    assert_type(parent_flow.start("o").result(), int)
    run = get_run("r")
    assert_type(run.status, str)
    assert_type(run.cancel("no longer wanted"), bool)
    assert_type(run.wake_up(), int)


def reading() -> None:
    """A value has the type of its Value; by a name alone, it may be anything."""
    run, total = get_run("r"), Value("total", int)
    assert_type(run.value(total, timeout="5s"), int)
    assert_type(run.value(Value("orders", list[Order])), list[Order])
    run.value("total").anything()
    publish(total, 3)
    publish("total", 3)


async def in_an_event_loop() -> None:
    """The forms for asyncio have the types of the others."""
    run = await order_flow.astart("o")
    assert_type(run, Run[str])
    assert_type(await astart(parent_flow, "o"), Run[int])
    assert_type(await order_flow.with_options(idempotency_key="k").astart("o"), Run[str])
    assert_type(await run.aresult(timeout="5s"), str)
    assert_type(await run.avalue(Value("total", int)), int)
    assert_type(await run.astatus(), str)
    assert_type(await run.acancel(), bool)
    assert_type(await run.afork(from_step="charge"), Run[str])
    assert_type((await aresume_hook("order:1", {"by": "kim"})).id, str)
    made = await acreate_schedule("nightly", order_flow, ("o",), cron="0 3 * * *")
    assert_type(await made.apause(), bool)
    async for each in alist_runs(status="failed"):
        assert_type(each, Run[Any])


def following() -> None:
    """The items of a stream have the type of its Stream."""
    run, totals = get_run("r"), Stream("totals", int, keep=None, on_retry="discard", until="step")
    assert_type(list(run.stream(totals, start=3, timeout="5s")), list[int])
    assert_type([each.value for each in run.stream(Stream("orders", list[Order])).items()], list[list[Order]])
    for item in run.stream("totals"):
        item.anything()
    assert_type(run.read_token(streams=[totals, "orders"], values=["total"], expires="5m"), str)
    emit(totals, 3)
    emit("totals", 3, keep=5, on_retry="discard", until="step")
    close_stream(totals)


def resuming() -> None:
    """A payload is an instance, or what becomes one; the run that took it is told."""
    assert_type(resume_hook("order:1", {"by": "kim"}).id, str)
    decisions.resume("order:1", {"by": "kim"})


def decorated_functions_are_passed_on(function: Callable[[Order], Awaitable[int]]) -> None: ...


decorated_functions_are_passed_on(charge)
