"""
A temporary folder for one run of the tests, and what stayed in it at the end.

Everything that a test, or a process that it starts, makes in the temporary folder lands in the run's own, so whatever
is there after the last test was left behind.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 4 * 2**30


def _memory() -> Path | None:
    """
    A folder in memory, where no commit of SQLite waits for a disk.

    None if ``TMPDIR`` names a folder, and where memory has too little room or runs no programs.
    """
    if os.environ.get("TMPDIR") or not os.access(_MEMORY, os.W_OK):
        return None
    about = os.statvfs(_MEMORY)
    fits = about.f_bavail * about.f_frsize >= _ROOM_BYTES and not about.f_flag & os.ST_NOEXEC
    return _MEMORY if fits else None


class TemporaryFolder:
    """The temporary folder of this process and of those that it starts, from ``__init__`` to ``remove``."""

    def __init__(self) -> None:
        self._before = os.environ.get("TMPDIR")
        # A process of xdist makes its folder beside that of the first process, not in it: paths of sockets are short.
        beside = Path(tempfile.gettempdir()).parent if "PYTEST_XDIST_WORKER" in os.environ else _memory()
        self.path = Path(tempfile.mkdtemp(prefix="durable-tests-", dir=beside))
        # Servers of other users start in folders below this one.
        self.path.chmod(0o755)
        self._use(str(self.path))
        self._made_by: dict[str, str] = {}
        self._elsewhere: dict[str, str] = {}

    def note(self, test: str) -> None:
        """Take what is new for what *test*, or a fixture that it was the first to use, has made."""
        for name in self._names():
            self._made_by.setdefault(name, test)

    def add(self, left: dict[str, str]) -> None:
        """Count what another process found in its own folder as left here."""
        self._elsewhere |= left

    def left(self) -> dict[str, str]:
        """What is there now: each name, and the test during which it came."""
        return {name: self._made_by.get(name, "no test") for name in self._names()} | self._elsewhere

    def remove(self) -> None:
        """Remove the folder, and use the one from before again."""
        self._use(self._before)
        shutil.rmtree(self.path, ignore_errors=True)

    def _names(self) -> list[str]:
        """All but pytest's own folders, and the folder of the embedded brokers' sockets, whose contents count."""
        sockets = f"durable-{os.getuid()}"
        here = [path.name for path in self.path.iterdir() if not path.name.startswith("pytest-of-")]
        inside = [f"{sockets}/{path.name}" for path in self.path.glob(f"{sockets}/*")]
        return sorted({*here, *inside} - {sockets})

    @staticmethod
    def _use(folder: str | None) -> None:
        tempfile.tempdir = None
        if folder is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = folder
