"""Which process this is, and whether another one on the same host still runs."""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import celery

from .. import forks


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process: its host, the host's boot and process namespace, its pid, and when it began (kernel ticks)."""

    host: str
    boot_id: str
    pid: int
    pid_started: int

    @property
    def place(self) -> str:
        """Where it runs, as log lines show it: ``host:pid``."""
        return f"{self.host}:{self.pid}"


@cache
def identify() -> ProcessIdentity:
    """This process."""
    # Two containers on one host share the boot id, but not the process ids.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        boot_id = f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        boot_id = "unknown"
    pid = os.getpid()
    return ProcessIdentity(socket.gethostname(), boot_id, pid, _started(pid) or 0)


forks.call_in_child(identify.cache_clear)


@cache
def versions() -> dict[str, str]:
    """The versions in this process: ``durable``, ``python``, ``celery``."""
    return {
        "durable": version("durable-celery"),
        "python": platform.python_version(),
        "celery": celery.__version__,
    }


def is_gone(other: ProcessIdentity, this_process: ProcessIdentity) -> bool:
    """Whether *other* ran on this host and has ended.  False where this process cannot find out."""
    if (other.host, other.boot_id) != (this_process.host, this_process.boot_id):
        return False
    if other.pid_started:
        return _started(other.pid) != other.pid_started
    try:
        os.kill(other.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it runs, and belongs to another user
    return False


def _started(pid: int) -> int | None:
    """Field 22 of /proc/<pid>/stat (proc(5)); the name in field 2 may hold blanks and parentheses."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    # A zombie has ended; its parent has not read its exit status yet.
    return None if fields[0] in "ZX" else int(fields[19])
