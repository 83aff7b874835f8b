"""A claim check: the hook carries a reference to the uploaded file, never the file."""

import logging
from dataclasses import dataclass
from typing import Any

from durable import define_hook, step, workflow

log = logging.getLogger(__name__)


@dataclass
class BlobReady:
    """The upload is complete; the file is in the blob store under this token."""

    blob_token: str


blob_ready = define_hook(BlobReady)


@step
def process_blob(blob_token: str) -> None:
    """Index the file: a real one would read it from the blob store, part by part."""
    log.info("Indexing blob %s", blob_token)


@workflow
async def import_large_file(import_id: str) -> dict[str, Any]:
    """Wait for the upload, then index what was uploaded."""
    event = await blob_ready.create(token=f"upload:{import_id}")
    await process_blob(event.blob_token)
    return {"import_id": import_id, "blob_token": event.blob_token, "status": "indexed"}
