"""Quart with the webhooks in the same process: ``hypercorn quart_app:application``."""

from typing import Any

from quart import Quart
from shop import engine, order

from durable import get_run
from durable.web import create_asgi_app

app = Quart(__name__)
webhooks = create_asgi_app(engine)


@app.post("/orders/<order_id>")
async def create_order(order_id: str) -> tuple[dict[str, str], int]:
    run = await order.with_options(idempotency_key=f"order:{order_id}").astart(order_id)
    return {"run_id": run.id}, 201


@app.get("/runs/<run_id>")
async def show_run(run_id: str) -> dict[str, object]:
    run = get_run(run_id)
    return {"status": await run.astatus(), "webhooks": [hook["url"] for hook in await run.ahooks()]}


@app.get("/runs/<run_id>/result")
async def wait_for_result(run_id: str) -> dict[str, str]:
    return {"result": await get_run(run_id).aresult(timeout="25s")}


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Requests to webhooks go to durable, all others to Quart."""
    is_webhook = scope.get("path", "").startswith("/.well-known/workflow/")
    await (webhooks if is_webhook else app)(scope, receive, send)
