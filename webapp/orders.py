"""Orders: each gets a run, and a URL for its payment provider."""

import time
from typing import Any

import flask

from durable import Run
from worker.workflows.payments import payment_webhook

from .runs import webhook_urls

bp = flask.Blueprint("orders", __name__)

#: How long a request waits until a worker has opened the webhook.
TIMEOUT_SECS = 5.0


@bp.post("/api/orders")
def create_order() -> tuple[dict[str, Any], int]:
    """Start an order's run.  ``webhook_url`` is null if no worker opened it in time; then poll /api/runs/<id>."""
    run = payment_webhook.start(flask.request.get_json()["order_id"])
    return {"run_id": run.id, "webhook_url": _webhook_url(run)}, 201


def _webhook_url(run: Run[Any]) -> str | None:
    deadline = time.monotonic() + TIMEOUT_SECS
    while not (urls := webhook_urls(run)):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)
    return urls[0]
