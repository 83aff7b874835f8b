"""What the web process takes: memory in KiB (what is shared counts in its part), threads, and CPU time."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from bench import procfs

EVERY_SECS = 5.0


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


async def watch(look: Callable[[], Size], done: asyncio.Event) -> list[Size]:
    """The size every few seconds until *done*."""
    seen = [look()]
    while not done.is_set():
        try:
            await asyncio.wait_for(done.wait(), EVERY_SECS)
        except TimeoutError:
            seen.append(look())
    return [*seen, look()]


def most(seen: list[Size]) -> Size:
    """The most of each."""
    return Size(max(each.kib for each in seen), max(each.threads for each in seen), seen[-1].cpu_secs)
