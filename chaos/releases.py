"""The code of older revisions of the schema, from the history of this repository."""

from __future__ import annotations

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_VERSIONS = "durable/migrations/versions/"


def releases() -> dict[str, str]:
    """The last commit of main with each revision of the schema that main has had, oldest revision first."""
    found: dict[str, str] = {}
    now = _migrations("HEAD")
    for commit in _git("rev-list", "--first-parent", "HEAD").split():
        migrations = _migrations(commit)
        # A migration may have had another number until its branch was merged.
        if migrations and migrations == now[: len(migrations)]:
            found.setdefault(Path(migrations[-1]).name[:4], commit)
    return dict(sorted(found.items()))


def _migrations(commit: str) -> list[str]:
    files = _git("ls-tree", "--name-only", commit, _VERSIONS).splitlines()
    return sorted(each for each in files if Path(each).name[:4].isdigit())


def checkout(commit: str, folder: Path, *packages: str) -> Path:
    """Put packages of a commit into a folder, which is returned; subprocess.CalledProcessError if history lacks it."""
    packed = subprocess.run(["git", "archive", commit, *packages], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
