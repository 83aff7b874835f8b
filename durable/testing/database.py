"""The database of an environment: a file with the library's tables."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from .. import migrations
from ..store import Store


def url_in(folder: Path) -> str:
    """The URL of the database in a folder."""
    return f"sqlite:///{folder}/durable.db"


def create_in(folder: Path) -> None:
    """Create the database in a folder."""
    (folder / "durable.db").write_bytes(empty())


@cache
def empty() -> bytes:
    """The bytes of an empty database.  It is created once per process, since copying is much faster."""
    with tempfile.TemporaryDirectory(prefix="durable-testing-") as name:
        folder = Path(name)
        store = Store(url_in(folder), pool_size=1)
        with store.begin() as tx:
            migrations.upgrade(tx)
        store.close()
        return (folder / "durable.db").read_bytes()
