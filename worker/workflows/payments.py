"""An order collects its payment provider's webhooks, and answers each while the provider waits."""

from typing import Any

from durable import Request, Response, create_webhook, publish, step, workflow

ACTIONS = {"payment.succeeded": "captured", "payment.failed": "flagged"}


@step
def process_event(request: Request) -> dict[str, Any]:
    """Answer one event.  Strangers send anything: what is not JSON, or has no type, is an unknown event."""
    match request.json(default=None):
        case {"type": str(kind)}:
            pass
        case _:
            kind = "unknown"
    request.respond_with(Response.json({"ack": True, "action": ACTIONS.get(kind, "ignored")}))
    return {"type": kind}


@workflow
async def payment_webhook(order_id: str) -> dict[str, Any]:
    """Take events until the payment has succeeded or was refunded."""
    webhook = create_webhook(respond_with="manual")
    publish("webhook_url", webhook.url)  # it goes to the external service
    ledger = []
    async for request in webhook:
        entry = await process_event(request)
        ledger.append(entry)
        if entry["type"] in ("payment.succeeded", "refund.created"):
            break
    return {"order_id": order_id, "webhook_url": webhook.url, "ledger": ledger, "status": "settled"}
