"""What Linux knows of a process: its memory, its CPU time, its children, its files."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The processes that *pid* has started and that go on."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def family(pid: int) -> list[int]:
    """The process and its children."""
    return [pid, *children(pid)]


def kib(pid: int) -> int:
    """Its memory in KiB; what is shared counts for each in its part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def threads(pid: int) -> int:
    """How many it has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def cpu_secs(pid: int) -> float:
    """The CPU time that it has used."""
    # The name in the second field may hold anything; the rest follows its bracket.
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / _TICKS_PER_SEC


def cpu_nanos(pid: int) -> int:
    """The CPU time of its main thread, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def times_open(pid: int, path: str) -> int:
    """How often it has that file open."""
    found = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found += os.readlink(each) == path
    return found
