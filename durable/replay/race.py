"""
``race``: the first outcome in the log wins.

What is settled already when the race begins is compared by the log as well: a
payload that was queued before a sleep was over wins against it.  A hook that
loses keeps its payload.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Sequence
from typing import Any

from .hooks import Hook
from .loop import DurableLoop


class _Entrant:
    """One of the awaitables: its future, once it has one."""

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self.awaitable = awaitable
        self.future: asyncio.Future[Any] | None = awaitable if asyncio.isfuture(awaitable) else None

    def settled_at(self, loop: DurableLoop) -> int | None:
        """When its outcome came, in the loop's count; None when there is none yet."""
        if isinstance(self.awaitable, Hook):
            return self.awaitable.queue[0].stamp if self.awaitable.queue else None
        if self.future is None or not self.future.done():
            return None
        stamp: int | None = getattr(self.future, "settled", None)
        return loop.next_stamp() if stamp is None else stamp

    def run(self, loop: DurableLoop) -> asyncio.Future[Any]:
        """Begin to wait for it."""
        if isinstance(self.awaitable, Hook):
            self.future = loop.create_task(self.awaitable.take())
        elif self.future is None:
            self.future = asyncio.ensure_future(self.awaitable, loop=loop)
        return self.future

    async def result(self) -> Any:
        """What the winner came to, or its exception; of a hook, what it received, not read yet."""
        if isinstance(self.awaitable, Hook) and self.future is None:
            return await self.awaitable.take()
        assert self.future is not None
        return self.future.result()

    def read(self, result: Any) -> Any:
        """The result, as the author gets it."""
        return self.awaitable.read(result) if isinstance(self.awaitable, Hook) else result

    def put_back(self, result: Any) -> None:
        """The author does not get it; but a payload is still the next awaiter's."""
        if isinstance(self.awaitable, Hook):
            self.awaitable.put_back(result)

    def drop(self) -> None:
        """It has lost."""
        if self.future is not None:
            self.future.cancel()
        elif inspect.iscoroutine(self.awaitable):
            self.awaitable.close()

    def forget(self) -> None:
        """Its outcome, if there is one, is wanted by nobody."""
        future = self.future
        if future is not None and future.done() and not future.cancelled() and future.exception() is None:
            self.put_back(future.result())


def race(loop: DurableLoop, awaitables: Sequence[Awaitable[Any]]) -> asyncio.Future[Any]:
    """Start all of *awaitables*; the outcome of the first, once the others are cancelled and over."""
    entrants = [_Entrant(each) for each in awaitables]
    settled = [(at, n) for n, each in enumerate(entrants) if (at := each.settled_at(loop)) is not None]
    if settled:
        task = loop.create_task(_settled(loop, entrants[min(settled)[1]], entrants))
    else:
        for each in entrants:
            each.run(loop)
        task = loop.create_task(_run(loop, entrants))
    # A task that is cancelled before it begins runs no `finally`.
    task.add_done_callback(lambda _: _drop(entrants))
    return task


async def _settled(loop: DurableLoop, winner: _Entrant, entrants: list[_Entrant]) -> Any:
    if winner.settled_at(loop) is not None:
        return await _won(winner, entrants)
    for each in entrants:  # another task was faster, and took the payload
        each.run(loop)
    return await _run(loop, entrants)


async def _run(loop: DurableLoop, entrants: list[_Entrant]) -> Any:
    first: asyncio.Future[_Entrant] = loop.create_future()

    def finished(entrant: _Entrant) -> None:
        if not first.done():
            first.set_result(entrant)

    for each in entrants:
        assert each.future is not None
        each.future.add_done_callback(lambda _, entrant=each: finished(entrant))  # type: ignore[misc]
    try:
        winner = await first
    except BaseException:
        await _end(entrants)
        raise
    return await _won(winner, entrants)


async def _won(winner: _Entrant, entrants: list[_Entrant]) -> Any:
    losers = [each for each in entrants if each is not winner]
    try:
        result = await winner.result()
    except BaseException:
        await _end(losers)
        raise
    try:
        await _end(losers)
    except BaseException:
        winner.put_back(result)  # cancelled while the losers cleaned up
        raise
    return winner.read(result)


async def _end(losers: list[_Entrant]) -> None:
    _drop(losers)
    running = [each.future for each in losers if each.future is not None and not each.future.done()]
    if running:
        await asyncio.wait(running)
    for each in losers:
        each.forget()


def _drop(losers: list[_Entrant]) -> None:
    for each in losers:
        each.drop()
