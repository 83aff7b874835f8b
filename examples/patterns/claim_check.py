"""Claim check: a large file goes to a store of files; the run gets its name by a hook, and never its bytes."""

from dataclasses import dataclass

from durable import define_hook, step, workflow


@dataclass
class Uploaded:
    path: str
    size: int


uploads = define_hook(Uploaded)


@step
def index(path: str) -> str:
    """Open *path* here, in the step."""
    return f"index of {path}"


@workflow
async def import_file(import_id: str) -> str:
    uploaded = await uploads.create(token=f"upload:{import_id}")
    return await index(uploaded.path)


def upload_complete(import_id: str, path: str, size: int) -> None:
    """What the view calls that the uploader calls."""
    uploads.resume(f"upload:{import_id}", Uploaded(path, size))
