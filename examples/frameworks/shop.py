"""A workflow that FastAPI, Django or Quart starts: ``celery -A shop worker`` runs it."""

from celery import Celery

from durable import Durable, Request, create_webhook, publish, step, workflow

celery = Celery("shop")
engine = Durable(celery)


@step
def confirm(request: Request) -> str:
    state = str(request.json(default={}).get("state", "unknown"))
    request.respond_with({"received": state})
    return state


@workflow
async def order(order_id: str) -> str:
    webhook = create_webhook(respond_with="manual")
    publish("payment_url", webhook.url)
    async for request in webhook:
        if await confirm(request) == "paid":
            break
    return f"{order_id} is paid"
