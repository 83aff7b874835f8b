"""
The workflows whose histories are kept, and how each history comes about.

``RECORDINGS`` maps the name of a file in ``tests/histories`` to a function that
plays the run.  ``python tests/record_histories.py`` writes the files that are missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncio_programs
from simulator import Simulator

from durable import FatalError, Request, Response, create_hook, create_webhook, define_hook, patched, race, sleep
from durable.registry.decorators import step, workflow

HISTORIES = Path(__file__).parent / "histories"

ACTIONS = {"payment.succeeded": "captured", "payment.failed": "flagged"}


@step(name="programs.process_event")
def process_event(request: Request) -> dict[str, str]:
    match request.json(default=None):
        case {"type": str(kind)}:
            pass
        case _:
            kind = "unknown"
    request.respond_with(Response.json({"ack": True, "action": ACTIONS.get(kind, "ignored")}))
    return {"type": kind}


@workflow(name="programs.payment_webhook")
async def payment_webhook(order_id: str) -> dict[str, Any]:
    webhook = create_webhook(respond_with="manual")
    ledger = []
    async for request in webhook:
        entry = await process_event(request)
        ledger.append(entry)
        if entry["type"] in ("payment.succeeded", "refund.created"):
            break
    return {"order_id": order_id, "webhook_url": webhook.url, "ledger": ledger, "status": "settled"}


@step(name="programs.submit_to_vendor")
def submit_to_vendor(document_id: str, url: str) -> None: ...


@step(name="programs.process_callback")
def process_callback(request: Request) -> dict[str, str]:
    verdict = request.json(default={}).get("verdict", "rejected")
    request.respond_with({"ok": True})
    return {"status": verdict}


@workflow(name="programs.async_verification")
async def async_verification(document_id: str) -> dict[str, str]:
    webhook = create_webhook(respond_with="manual")
    await submit_to_vendor(document_id, webhook.url)

    async def callback() -> dict[str, str]:
        async for request in webhook:
            return await process_callback(request)
        raise FatalError("Webhook closed without callback")

    async def deadline() -> dict[str, str]:
        await sleep("30s")
        return {"status": "timed_out"}

    return {"document_id": document_id, **await race(callback(), deadline())}


@dataclass
class BlobReady:
    blob_token: str


blob_ready = define_hook(BlobReady, name="programs.blob_ready")


@step(name="programs.process_blob")
def process_blob(blob_token: str) -> None: ...


@workflow(name="programs.import_large_file")
async def import_large_file(import_id: str) -> dict[str, str]:
    event = await blob_ready.create(token=f"upload:{import_id}")
    await process_blob(event.blob_token)
    return {"import_id": import_id, "blob_token": event.blob_token, "status": "indexed"}


@step(name="programs.work")
def work(n: int) -> int:
    if n < 0:
        raise ValueError(f"{n} is negative")
    return n * 10


@workflow(name="programs.races")
async def races(rounds: int) -> list[int]:
    """Every round races what is left; none is returned twice."""
    left = {n: work(n) for n in range(rounds)}
    order = []
    while left:
        _, pending = await asyncio.wait(left.values(), return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
        order += [n for n, call in left.items() if call not in pending]
        left = {n: call for n, call in left.items() if call in pending}
    order.append(await race(work(100), work(101), work(102)))
    return order


@workflow(name="programs.groups")
async def groups(width: int) -> list[str]:
    """One of a TaskGroup fails: the others are told in the order in which they were made."""
    told: list[str] = []

    async def child(n: int) -> None:
        try:
            await work(n)
            await work(n + 100)
        except asyncio.CancelledError:
            told.append(f"cancelled {n}")
            raise

    try:
        async with asyncio.TaskGroup() as group:
            for n in range(width):
                group.create_task(child(n))
    except* ValueError as caught:
        told += [str(each) for each in caught.exceptions]
    return told


@workflow(name="programs.timeouts")
async def timeouts() -> list[Any]:
    seen: list[Any] = []

    async def twice(n: int) -> int:
        return await work(n) + await work(n)

    for limit in (5, 50):
        try:
            seen.append(await asyncio.wait_for(twice(1), limit))
        except TimeoutError:
            seen.append("late")
    seen += await asyncio.gather(asyncio.wait_for(twice(2), 60), work(3), asyncio.sleep(1, "slept"))
    async with asyncio.timeout(60):
        for next_done in asyncio.as_completed([twice(4), twice(5), work(6)]):
            seen.append(await next_done)
    return seen


@workflow(name="programs.conversation")
async def conversation() -> list[Any]:
    """Payloads come between the awaits, and none is lost to the race that the hook loses."""
    said: list[Any] = []
    with create_hook(token="conversation") as hook:
        said.append(await hook)
        await sleep(10)
        said.append(await hook)
        done = work(1)
        said.append(await race(hook, done))
        said.append(await hook)
        while (payload := await hook) != "bye":
            said.append(payload)
    again = create_hook(token="conversation")
    said.append(await again.get_conflict())
    async for payload in again:
        said.append(payload)
        break
    other = create_hook(token="elsewhere")
    said.append(await other.get_conflict())
    return said


@workflow(name="programs.cleanup")
async def cleanup() -> None:
    hook = create_hook(token="stop")
    try:
        await asyncio.gather(work(1), sleep("1d"), hook)
    finally:
        await work(2)
        await sleep(1)
        await work(3)


@workflow(name="programs.parts")
async def parts() -> list[Any]:
    """Queue, Event, Lock, Semaphore, shield; a child run; a change of code that is recorded."""
    seen: list[Any] = []
    queue: asyncio.Queue[int] = asyncio.Queue()
    ready, lock, two = asyncio.Event(), asyncio.Lock(), asyncio.Semaphore(2)

    async def producer(n: int) -> None:
        async with two:
            value = await work(n)
        async with lock:
            await asyncio.sleep(1)
            await queue.put(value)
        if n == 4:
            ready.set()

    makers = [asyncio.create_task(producer(n)) for n in range(5)]
    for _ in makers:
        seen.append(await queue.get())
    await ready.wait()
    await asyncio.shield(asyncio.ensure_future(sleep(3)))
    if patched("greeting"):
        seen.append(await greeting("you"))
    return seen


@workflow(name="programs.greeting")
async def greeting(name: str) -> str:
    return f"hello {name}"


def _payments() -> Simulator:
    sim = Simulator(payment_webhook, ("order-1",)).turn()
    for body in ({"type": "payment.failed"}, b"not json", {"type": "payment.succeeded"}):
        sim.post(body).work()
    return sim


def _payments_burst() -> Simulator:
    """Three requests in one turn."""
    sim = Simulator(payment_webhook, ("order-2",)).turn()
    sim.turn(*[sim.posted({"type": kind}) for kind in ("payment.failed", "refund.created", "payment.failed")])
    return sim.work()


def _verified() -> Simulator:
    sim = Simulator(async_verification, ("doc-1",)).turn().work().wait(12)
    return sim.post({"verdict": "verified"}).work()


def _timed_out() -> Simulator:
    return Simulator(async_verification, ("doc-2",)).turn().work().wait(31)


def _imported() -> Simulator:
    sim = Simulator(import_large_file, ("imp-1",)).turn()
    return sim.send(BlobReady("blob-7"), "upload:imp-1").work()


def _races() -> Simulator:
    sim = Simulator(races, (4,)).turn()
    sim.complete("r#3", 20)
    sim.turn(sim.completed("r#4", 30), sim.completed("r#1", 0))
    sim.complete("r#2", 10)
    return sim.complete("r#6", 1010)


def _groups() -> Simulator:
    sim = Simulator(groups, (12,)).turn()
    sim.complete("r.5#1", 40).complete("r.2#1", 10)
    return sim.fail("r.3#1", ValueError("the third"))


def _timeouts() -> Simulator:
    sim = Simulator(timeouts).turn()
    sim.complete("work", 10).wait(6)
    sim.wait(1).work("work").work("work").wait(2)
    sim.work()
    return sim


def _conversation() -> Simulator:
    sim = Simulator(conversation, taken={"elsewhere": "run-9"}).turn()
    sim.send("one").send("two").wait(11)
    sim.turn(sim.completed("work", 10), sim.sent("three"))
    sim.send("four").send("bye")
    return sim.send("last")


def _cleanup() -> Simulator:
    sim = Simulator(cleanup).turn().wait(60)
    sim.cancel("enough").work().wait(2).work()
    return sim


def _parts() -> Simulator:
    sim = Simulator(parts).turn()
    sim.complete("r.2#1", 10).complete("r.1#1", 0).work().wait(20)
    return sim.child("hello you")


RECORDINGS: dict[str, Callable[[], Simulator]] = {
    "payments": _payments,
    "payments_burst": _payments_burst,
    "verified": _verified,
    "timed_out": _timed_out,
    "imported": _imported,
    "races": _races,
    "groups": _groups,
    "timeouts": _timeouts,
    "conversation": _conversation,
    "cleanup": _cleanup,
    "parts": _parts,
    **asyncio_programs.RECORDINGS,
}
