"""Claim check: a large file goes to a file store; a hook gives the run its name, never its bytes."""

from dataclasses import dataclass

from durable import define_hook, step, workflow


@dataclass
class Uploaded:
    path: str
    size: int


uploads = define_hook(Uploaded)


@step
def index(path: str) -> str:
    """Open *path* in this step."""
    return f"index of {path}"


@workflow
async def import_file(import_id: str) -> str:
    uploaded = await uploads.create(token=f"upload:{import_id}")
    return await index(uploaded.path)


def upload_complete(import_id: str, path: str, size: int) -> None:
    """Call this in the view to which the uploader reports."""
    uploads.resume(f"upload:{import_id}", Uploaded(path, size))
