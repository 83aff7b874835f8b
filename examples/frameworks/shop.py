"""A workflow that FastAPI or Django starts: ``celery -A shop worker`` runs it."""

from celery import Celery

from durable import Durable, Request, create_webhook, step, workflow

celery = Celery("shop")
# Fewer connections than the 64 threads that fastapi_app gives to the webhooks, so that some are left.
engine = Durable(celery, max_held=60)


@step
def confirm(request: Request) -> str:
    state = str(request.json(default={}).get("state", "unknown"))
    request.respond_with({"received": state})
    return state


@workflow
async def order(order_id: str) -> str:
    webhook = create_webhook(respond_with="manual")
    async for request in webhook:
        if await confirm(request) == "paid":
            break
    return f"{order_id} is paid"
