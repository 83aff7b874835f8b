"""
One application with two databases: each customer's runs are in one of them.  ::

    celery -A shards:north worker
    celery -A shards:south worker
    flask --app shards:create_app run
"""

import os
import zlib

import flask
from celery import Celery

from durable import Durable, Request, Run, create_webhook, step, workflow
from durable.web import create_blueprint

URL = os.environ.get("SHOP_URL", "http://127.0.0.1:5000")


@step
def receive(request: Request) -> str:
    request.respond_with({"received": True})
    return str(request.json()["state"])


@workflow
async def order(customer: str) -> str:
    webhook = create_webhook(respond_with="manual")
    return f"{customer}: {await receive(await webhook)}"


# Each has a database and a queue of its own, and a prefix in the URLs of its webhooks.  They share the broker.
north, south = Celery("north"), Celery("south")
north.conf.task_default_queue, south.conf.task_default_queue = "north", "south"
SHARDS = [
    Durable(
        app,
        database_url=os.environ[f"{app.main.upper()}_DATABASE_URL"],
        public_url=f"{URL}/{app.main}",
    )
    for app in (north, south)
]


def shard_of(customer: str) -> Durable:
    """Return the engine that has a customer's runs.  A customer stays where the first run was."""
    return SHARDS[zlib.crc32(customer.encode()) % len(SHARDS)]


def create_app() -> flask.Flask:
    app = flask.Flask(__name__)
    for engine in SHARDS:
        name = engine.celery.main
        app.register_blueprint(create_blueprint(engine, url_prefix=f"/{name}"), name=name)

    @app.post("/customers/<customer>/orders")
    def place(customer: str) -> tuple[dict[str, str], int]:
        run = shard_of(customer).start(order, customer)
        return {"run_id": run.id, "shard": shard_of(customer).celery.main}, 201

    @app.get("/customers/<customer>/orders/<run_id>")
    def show(customer: str, run_id: str) -> dict[str, object]:
        run: Run[str] = shard_of(customer).get_run(run_id)
        urls = [hook["url"] for hook in run.hooks()]
        return {"status": run.status, "webhooks": urls, "result": run.result() if run.status == "completed" else None}

    return app
