"""FastAPI with the webhooks in the same process: ``uvicorn fastapi_app:app``."""

from fastapi import FastAPI
from shop import engine, order

from durable import get_run
from durable.web import create_asgi_app

app = FastAPI()


@app.post("/orders/{order_id}", status_code=201)
async def create_order(order_id: str) -> dict[str, str]:
    run = await order.with_options(idempotency_key=f"order:{order_id}").astart(order_id)
    return {"run_id": run.id}


@app.get("/runs/{run_id}")
async def show_run(run_id: str) -> dict[str, object]:
    run = get_run(run_id)
    return {"status": await run.astatus(), "webhooks": [hook["url"] for hook in await run.ahooks()]}


@app.get("/runs/{run_id}/result")
async def wait_for_result(run_id: str) -> dict[str, str]:
    return {"result": await get_run(run_id).aresult(timeout="25s")}


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


# The last route.  It is mounted at the root, because senders use the whole path.
app.mount("/", create_asgi_app(engine))
