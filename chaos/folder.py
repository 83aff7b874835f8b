"""The folder of a run: servers' data, the processes' logs and temporary files, and the steps' ledger."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--keep``."""
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for logs and data, which stays")


@contextmanager
def opened(keep: Path | None, prefix: str) -> Iterator[Path]:
    """The folder *keep*, made now; without one, a temporary folder that is removed, also at SIGTERM."""
    if keep is not None:
        keep.mkdir(mode=0o755, parents=True)
        yield keep.resolve()
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        folder = Path(name)
        # PostgreSQL's user looks into it.
        folder.chmod(0o755)
        yield folder
