"""
Sending: so many connections held, so many requests a second beside them.

A request is due at its moment, whether those before it have been answered or not; its latency counts from then.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from .client import Answer, Line, post
from .traffic import Sent, Traffic
from .workflows import ID

#: Connections that the requests of a second share.
LINES = 48


@dataclass
class Book:
    """What was sent, and what it was answered."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    #: Seconds from when a request was due to its answer.
    latencies: list[float] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)
    #: Sent, and the connection ended: nobody knows.
    doubtful: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    #: How many wait for their answer now.
    held: int = 0

    def begin_anew(self) -> None:
        """Count statuses and latencies from here; what was accepted stays so."""
        self.statuses.clear()
        self.latencies.clear()

    def enter(self, sent: Sent, answer: Answer, secs: float) -> None:
        """Note a request that is not held."""
        self.statuses[sent.kind][answer.status] += 1
        self.latencies.append(secs)
        if answer.status not in sent.statuses:
            self.wrong.append(f"{sent.kind} {sent.id}: {answer.status} {answer.body[:200]!r}")
        self._take(sent.id, answer.status)

    def enter_held(self, name: str, answer: Answer) -> None:
        """Note one that was held: its answer has to be its own."""
        self.statuses["held"][answer.status] += 1
        right = answer.status == 202 or (answer.status == 200 and json.loads(answer.body) == {"id": name})
        if not right:
            self.wrong.append(f"held {name}: {answer.status} {answer.body[:200]!r}")
        self._take(name, answer.status)

    def _take(self, name: str | None, status: int) -> None:
        if name is None:
            return
        if 200 <= status < 300:
            self.accepted.add(name)
        elif status == 0:
            self.doubtful.add(name)

    @property
    def server_errors(self) -> int:
        """Answers of 500 and above."""
        return sum(n for counts in self.statuses.values() for status, n in counts.items() if status >= 500)


class Siege:
    """Against the web process at *port*."""

    def __init__(self, port: int, traffic: Traffic) -> None:
        self.book = Book()
        self._port = port
        self._traffic = traffic
        self._names = itertools.count()

    async def lay(self, secs: float, hold_paths: Sequence[str], *, held: int, rate: float) -> float:
        """Hold there and send for that long, and wait for the last answers; requests a second that were reached."""
        end = time.monotonic() + secs
        holders = [asyncio.create_task(self._hold(hold_paths[n % len(hold_paths)], end)) for n in range(held)]
        while self.book.held < held:
            await asyncio.sleep(0.01)
        began, numbers = time.monotonic(), itertools.count()
        await asyncio.gather(*(self._send(began, end, rate, numbers) for _ in range(LINES)))
        reached = len(self.book.latencies) / (time.monotonic() - began)
        await asyncio.gather(*holders)
        return reached

    async def _hold(self, path: str, end: float) -> None:
        line = Line(self._port)
        while True:
            name = f"held-{next(self._names)}"
            self.book.held += 1
            answer = await line.ask(post(path, b"{}", f"{ID}: {name}"))
            self.book.held -= 1
            self.book.enter_held(name, answer)
            if time.monotonic() > end:
                break
        line.close()

    async def _send(self, began: float, end: float, rate: float, numbers: itertools.count[int]) -> None:
        line = Line(self._port)
        while time.monotonic() < end:
            due = began + next(numbers) / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            sent = self._traffic.next()
            answer = await line.ask(sent.raw)
            self.book.enter(sent, answer, time.monotonic() - due)
            if answer.status == 202:
                self._traffic.remember(sent)
            if sent.alone:
                line.close()
        line.close()
