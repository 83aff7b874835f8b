"""The database of an environment: a file with our tables."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from .. import migrations
from ..store import Store


def url_in(folder: Path) -> str:
    """The URL of the database in a folder."""
    return f"sqlite:///{folder}/durable.db"


def create_in(folder: Path) -> None:
    """Make one."""
    shutil.copy(_empty() / "durable.db", folder)


@cache
def _empty() -> Path:
    """The folder of one that is empty, made once per process: copying it takes no time."""
    folder = Path(tempfile.mkdtemp(prefix="durable-testing-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    store = Store(url_in(folder), pool_size=1)
    with store.begin() as tx:
        migrations.upgrade(tx)
    store.close()
    return folder
