"""Documents: each is sent to the verifying vendor by a run of its own."""

from typing import Any

import flask

from worker.workflows.verification import async_verification

bp = flask.Blueprint("documents", __name__)


@bp.post("/api/documents")
def submit_document() -> tuple[dict[str, Any], int]:
    """Start a verification; /api/runs/<id> tells what came of it."""
    run = async_verification.start(flask.request.get_json()["document_id"])
    return {"run_id": run.id}, 202
