"""Documents: each starts a run, which sends it to the vendor that verifies it."""

from typing import Any

import flask

from worker.workflows.verification import async_verification

bp = flask.Blueprint("documents", __name__)


@bp.post("/api/documents")
def submit_document() -> tuple[dict[str, Any], int]:
    """Start a verification; /api/runs/<id> shows its result."""
    run = async_verification.start(flask.request.get_json()["document_id"])
    return {"run_id": run.id}, 202
