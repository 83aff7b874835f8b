"""FastAPI with the webhooks in the same process: ``uvicorn fastapi_app:app``."""

from a2wsgi import WSGIMiddleware
from fastapi import FastAPI
from shop import order
from webhooks import app as webhooks

from durable import get_run

app = FastAPI()


# `def`, not `async def`: FastAPI runs it in a thread, where it may wait for the database.
@app.post("/orders/{order_id}", status_code=201)
def create_order(order_id: str) -> dict[str, str]:
    run = order.with_options(idempotency_key=f"order:{order_id}").start(order_id)
    return {"run_id": run.id}


@app.get("/runs/{run_id}")
def show_run(run_id: str) -> dict[str, object]:
    run = get_run(run_id)
    return {"status": run.status, "webhooks": [hook["url"] for hook in run.hooks()]}


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


# The last route.  It is mounted at the root, because the blueprint needs the whole path.
app.mount("/", WSGIMiddleware(webhooks, workers=64))
