"""Orders: each gets a run, and the URL that its payment provider is to call."""

import time
from typing import Any

import flask

from durable import Run
from worker.workflows.payments import payment_webhook

from .runs import webhook_urls

bp = flask.Blueprint("orders", __name__)

#: How long a request waits for a worker to have opened the webhook.
PATIENCE_SECS = 5.0


@bp.post("/api/orders")
def create_order() -> tuple[dict[str, Any], int]:
    """Start an order's run.  ``webhook_url`` is null when no worker was there in time: ask /api/runs/<id>."""
    run = payment_webhook.start(flask.request.get_json()["order_id"])
    return {"run_id": run.id, "webhook_url": _webhook_url(run)}, 201


def _webhook_url(run: Run[Any]) -> str | None:
    deadline = time.monotonic() + PATIENCE_SECS
    while not (urls := webhook_urls(run)):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)
    return urls[0]
