"""What the web process takes: memory in KiB (what is shared counts in its part), threads, and CPU time."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from bench import procfs

_EVERY_SECS = 2.0


@dataclass(frozen=True)
class Size:
    """At one moment."""

    kib: int
    threads: int
    #: Seconds since it began.
    cpu_secs: float

    def fits(self, before: Size, spare_threads: int) -> bool:
        """Whether this is no more than before, but for a tenth of the memory and the threads of a pool that grows."""
        return self.kib <= before.kib * 1.1 and self.threads <= before.threads + spare_threads


def size(master: subprocess.Popen[bytes]) -> Size:
    """Of gunicorn's only worker."""
    (pid,) = procfs.children(master.pid)
    return Size(procfs.kib(pid), procfs.threads(pid), procfs.cpu_secs(pid))


async def greatest(look: Callable[[], Size], done: asyncio.Event) -> Size:
    """The most of each until *done*."""
    most = look()
    while not done.is_set():
        now = look()
        most = Size(max(most.kib, now.kib), max(most.threads, now.threads), now.cpu_secs)
        try:
            await asyncio.wait_for(done.wait(), _EVERY_SECS)
        except TimeoutError:
            continue
    return most
