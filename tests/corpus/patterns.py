"""The three patterns of webhooks: a ledger, a callback against a deadline, a claim check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from corpus.cases import Case, during_posts, is_over, resume, waited
from durable import FatalError, Request, Response, Run, create_webhook, define_hook, race, sleep, step, workflow
from durable.testing import Environment


@step(name="corpus.process_event", retry_backoff=0)
def process_event(request: Request) -> str:
    match request.json(default=None):
        case {"type": str(kind)}:
            pass
        case _:
            kind = "unknown"
    request.respond_with({"ack": kind})
    return kind


@workflow(name="corpus.payments")
async def payments(order_id: str) -> dict[str, Any]:
    webhook = create_webhook(respond_with="manual")
    ledger = []
    async for request in webhook:
        kind = await process_event(request)
        ledger.append(kind)
        if kind == "payment.succeeded":
            break
    return {"order_id": order_id, "last": ledger[-1]}


@step(name="corpus.submit", retry_backoff=0)
def submit(url: str) -> None:
    assert url.startswith("https://")


@workflow(name="corpus.verification")
async def verification() -> dict[str, str]:
    webhook = create_webhook(respond_with="manual")
    await submit(webhook.url)

    async def callback() -> dict[str, str]:
        async for request in webhook:
            return {"status": await process_event(request)}
        raise FatalError("closed without a callback")

    async def deadline() -> dict[str, str]:
        await sleep("365d")
        return {"status": "timed out"}

    return await race(callback(), deadline())


@workflow(name="corpus.deadline")
async def too_late() -> str:
    webhook = create_webhook(respond_with="manual")

    async def callback() -> str:
        return await process_event(await webhook)

    async def deadline() -> str:
        await sleep("30s")
        return "timed out"

    return await race(callback(), deadline())


@dataclass
class BlobReady:
    blob_token: str


blob_ready = define_hook(BlobReady, name="corpus.blob_ready")


@step(name="corpus.index", retry_backoff=0)
def index(blob_token: str) -> str:
    return f"indexed {blob_token}"


@workflow(name="corpus.claim_check")
async def claim_check(import_id: str) -> str:
    event = await blob_ready.create(token=f"upload:{import_id}")
    return await index(event.blob_token)


def uploads(env: Environment, run: Run[Any]) -> None:
    if not is_over(run):
        resume(env, run, "upload:7", BlobReady("blob-7"))


@workflow(name="corpus.notified")
async def notified() -> str:
    """A webhook that answers at once, by itself."""
    request = await create_webhook(respond_with=Response.json({"noted": True}))
    return await describe(request)


@step(name="corpus.describe", retry_backoff=0)
def describe(request: Request) -> str:
    return str(request.json()["type"])


@workflow(name="corpus.unanswered")
async def unanswered() -> str:
    """Nobody answers what it was sent: its sender is told where to ask, and there that the run is over."""
    request = await create_webhook(respond_with="manual")
    return str(request.json()["type"])


def posts_once(env: Environment, run: Run[Any]) -> None:
    """Post, unless that was done: as a sender who reads the run's log."""
    env.run_until_idle()
    while not is_over(run) and not run.hooks() and env.jump():
        pass
    if not is_over(run) and not any(event.kind == "hook_received" for event in waited(env, run).events()):
        env.post(run.hooks()[0]["url"], json={"type": "ping"})


CASES = [
    Case(payments, ("order-1",), during_posts("payment.pending", "payment.succeeded")),
    Case(verification, (), during_posts("verified")),
    Case(too_late),
    Case(claim_check, ("7",), uploads),
    Case(notified, during=posts_once),
    Case(unanswered, during=posts_once),
]
