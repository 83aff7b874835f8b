"""Uploads: an import starts before its file is uploaded, and continues when the upload is complete."""

from typing import Any

import flask

from worker.workflows.imports import BlobReady, blob_ready, import_large_file

bp = flask.Blueprint("uploads", __name__)


@bp.post("/api/imports")
def begin_import() -> tuple[dict[str, Any], int]:
    """Start an import; it waits for its upload."""
    run = import_large_file.start(flask.request.get_json()["import_id"])
    return {"run_id": run.id}, 202


@bp.post("/api/upload-complete")
def upload_complete() -> dict[str, Any]:
    """The blob store calls this; 404 if no import with this id waits."""
    body = flask.request.get_json()
    blob_ready.resume(f"upload:{body['import_id']}", BlobReady(body["blob_token"]))
    return {"ok": True}
