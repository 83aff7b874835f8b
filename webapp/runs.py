"""One run: its status, its open webhooks, and its result or error."""

from typing import Any

import flask

from durable import Run, RunFailed, get_run

bp = flask.Blueprint("runs", __name__)


@bp.get("/api/runs/<run_id>")
def show_run(run_id: str) -> dict[str, Any]:
    """The run; ``webhooks`` are the URLs that it has open."""
    run = get_run(run_id)
    return {"run_id": run.id, "status": run.status, "webhooks": webhook_urls(run), **_outcome(run)}


def webhook_urls(run: Run[Any]) -> list[str]:
    """The webhooks that the run has open."""
    return [hook["url"] for hook in run.hooks() if hook["is_webhook"]]


def _outcome(run: Run[Any]) -> dict[str, Any]:
    match run.status:
        case "completed":
            return {"result": run.result()}
        case "failed":
            return {"error": _error(run)}
        case _:
            return {}


def _error(run: Run[Any]) -> str:
    try:
        run.result()
    except RunFailed as error:
        return f"{error.error_type}: {error.message}"
    raise AssertionError("a failed run's result raises")
