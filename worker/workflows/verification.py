"""A vendor verifies a document and calls back, or does not: a race against a deadline."""

import json
import logging
import os
import urllib.request
from typing import Any

from durable import FatalError, Request, Response, create_webhook, race, sleep, step, workflow

log = logging.getLogger(__name__)


@step
def submit_to_vendor(document_id: str, callback_url: str) -> None:
    """Send the document to the service at VENDOR_URL, which will POST its verdict to the callback URL."""
    vendor = os.environ.get("VENDOR_URL")
    if vendor is None:
        log.warning("VENDOR_URL is not set, so nobody verifies document %s: call back by hand.", document_id)
        return
    body = json.dumps({"document_id": document_id, "callback_url": callback_url}).encode()
    request = urllib.request.Request(f"{vendor}/documents", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10):
        pass


@step
def process_callback(request: Request) -> dict[str, Any]:
    """Thank the vendor, and keep its verdict."""
    match request.json(default=None):
        case {"verdict": str(verdict)}:
            pass
        case _:
            verdict = "unknown"
    request.respond_with(Response.json({"received": True}))
    return {"status": "verified", "verdict": verdict}


@workflow
async def async_verification(document_id: str) -> dict[str, Any]:
    """Wait for the vendor's callback, 30 seconds at most."""
    webhook = create_webhook(respond_with="manual")
    await submit_to_vendor(document_id, webhook.url)

    async def callback() -> dict[str, Any]:
        async for request in webhook:
            return await process_callback(request)  # it calls request.respond_with
        raise FatalError("Webhook closed without callback")

    async def deadline() -> dict[str, Any]:
        await sleep("30s")
        return {"status": "timed_out"}

    return {"document_id": document_id, **await race(callback(), deadline())}
