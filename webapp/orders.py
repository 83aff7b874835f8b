"""Orders: each gets a run, and a URL for its payment provider."""

from typing import Any

import flask

from worker.workflows.payments import payment_webhook

bp = flask.Blueprint("orders", __name__)


@bp.post("/api/orders")
def create_order() -> tuple[dict[str, Any], int]:
    """Start an order's run.  ``webhook_url`` is null if no worker opened it in time; then poll /api/runs/<id>."""
    run = payment_webhook.start(flask.request.get_json()["order_id"])
    try:
        url = run.value("webhook_url", timeout="5s")
    except TimeoutError:
        url = None
    return {"run_id": run.id, "webhook_url": url}, 201
