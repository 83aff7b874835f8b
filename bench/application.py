"""What the benchmark's worker and web process serve: one workflow, and one plain Celery task to compare with."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import flask
import redis
from celery import Celery

from durable import Durable, Request, create_webhook, step, workflow
from durable.web import create_blueprint

celery = Celery("bench", broker=os.environ.get("DURABLE_BROKER_URL"))
celery.conf.worker_prefetch_multiplier = 1
engine = Durable(celery)


@step
def answer(request: Request) -> dict[str, Any]:
    """Answer the sender, and do nothing else."""
    request.respond_with({"ok": True})
    return {"ok": True}


@workflow
async def one_request() -> dict[str, Any]:
    """Wait for one request, and have it answered."""
    return await answer(await create_webhook(respond_with="manual"))


@cache
def client() -> redis.Redis:
    """This process's connection to Redis."""
    return redis.Redis.from_url(engine.broker_url())


@celery.task(ignore_result=True)  # type: ignore[untyped-decorator]
def plain(inbox: str) -> None:
    """What a team without durable would have: a task, and its result where the caller waits."""
    client().rpush(inbox, "ok")


def create_app() -> flask.Flask:
    """The blueprint, and an address that says that the process is up."""
    app = flask.Flask("bench")
    app.register_blueprint(create_blueprint(engine))
    app.add_url_rule("/", view_func=lambda: "up")
    return app
