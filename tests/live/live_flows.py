"""Workflows for the live tests: small variations of the patterns, with steps that a test can hold up."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import threading
from pathlib import Path
from typing import Any

from durable import Request, Response, create_hook, create_webhook, race, sleep, step, workflow

SECRET = b"the secret of the sender"


@step
def answer(request: Request) -> str:
    """Answer a request with its own body."""
    request.respond_with(Response(b"answer to " + request.data, content_type="text/plain"))
    return request.text()


@step
def note(text: str) -> str:
    return text


@workflow
async def deadline(limit: str) -> dict[str, Any]:
    """A callback against a deadline, as in the verification pattern."""
    webhook = create_webhook(respond_with="manual")

    async def callback() -> dict[str, Any]:
        async for request in webhook:
            return {"status": "verified", "body": await answer(request)}
        raise AssertionError("closed without callback")

    async def until() -> dict[str, Any]:
        await sleep(limit)
        return {"status": "timed_out"}

    return await race(callback(), until())


@workflow
async def naps(limit: str) -> str:
    """Sleep, then run a step."""
    await sleep(limit)
    return await note("awake")


@step
def answer_behind_gate(request: Request, folder: str) -> str:
    """Say that the attempt has begun, wait until the test opens the gate, and answer."""
    (Path(folder) / "begun").touch()
    pause = threading.Event()
    while not (Path(folder) / "open").exists():
        pause.wait(0.01)
    request.respond_with(Response(b"answer to " + request.data, content_type="text/plain"))
    return request.text()


@workflow
async def gated_orders(folder: str) -> dict[str, Any]:
    """The payment pattern with a step that a test can hold up: a ledger of what came, until the last."""
    webhook = create_webhook(respond_with="manual")
    ledger = []
    async for request in webhook:
        gated = request.args.get("gated")
        ledger.append(await (answer_behind_gate(request, folder) if gated else answer(request)))
        if request.args.get("last"):
            break
    return {"ledger": ledger, "status": "settled"}


@workflow
async def answers_late(go: str) -> str:
    """Answer the request only after the hook *go* was resumed; the connection is long released then."""
    webhook = create_webhook(respond_with="manual", timeout="300ms")
    request = await webhook
    await create_hook(token=go)
    return await answer(request)


@workflow
async def never_answers(how: str) -> str:
    """Take a request, and end without answering it."""
    webhook = create_webhook(respond_with="manual")
    request = await webhook
    if how == "fails":
        raise ValueError(f"{request.method} is not to my taste")
    return await note("forgotten")


@workflow
async def gathers(count: int, go: str) -> list[str]:
    """Take *count* requests, and answer them all once the hook *go* was resumed."""
    webhook = create_webhook(respond_with="manual")
    requests = [await webhook for _ in range(count)]
    await create_hook(token=go)
    return list(await asyncio.gather(*(answer(request) for request in requests)))


@step
def look_at(request: Request) -> dict[str, Any]:
    """What a step sees of a request."""
    request.respond_with({"size": len(request.data)})
    return {
        "method": request.method,
        "url": request.url,
        "args": list(request.args.items(multi=True)),
        "data": request.data,
        "text": request.text(),
        "content_type": request.content_type,
        "form": list(request.form.items(multi=True)),
        "files": [
            (name, file.filename, file.content_type, file.read()) for name, file in request.files.items(multi=True)
        ],
    }


@step
def verify(request: Request) -> bool:
    """Check the signature of the body, as the docs of many a sender say."""
    signature = hmac.new(SECRET, request.data, hashlib.sha256).hexdigest()
    good = hmac.compare_digest(request.headers.get("X-Signature", ""), signature)
    request.respond_with(Response.json({"verified": good}, 200 if good else 401))
    return good


@workflow
async def looks(kind: str) -> Any:
    """One request, looked at by a step."""
    request = await create_webhook(respond_with="manual", methods=("POST", "PUT"))
    return await (verify(request) if kind == "signed" else look_at(request))
