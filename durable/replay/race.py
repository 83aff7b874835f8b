"""
``race``: the first outcome in the log wins.

Awaitables that are resolved already when the race begins are compared by the
order of the log too: a payload that was queued before a sleep was over wins
against the sleep.  A hook that loses keeps its payload.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Sequence
from typing import Any

from .hooks import Hook
from .loop import DurableLoop


class _Entrant:
    """One awaitable of a race, and its future once the race waits for it."""

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self.awaitable = awaitable
        self.future: asyncio.Future[Any] | None = awaitable if asyncio.isfuture(awaitable) else None

    def settled_at(self, loop: DurableLoop) -> int | None:
        """The stamp (``next_stamp``) of its outcome or first payload, None while there is none."""
        if isinstance(self.awaitable, Hook):
            return self.awaitable.queue[0].stamp if self.awaitable.queue else None
        if self.future is None or not self.future.done():
            return None
        stamp: int | None = getattr(self.future, "settled", None)
        return loop.next_stamp() if stamp is None else stamp

    def start(self, loop: DurableLoop) -> None:
        """Begin to wait for it."""
        if isinstance(self.awaitable, Hook):
            self.future = loop.create_task(self.awaitable.take())
        elif self.future is None:
            self.future = asyncio.ensure_future(self.awaitable, loop=loop)

    async def result(self) -> Any:
        """The result of the winner, or its exception.  For a hook: the item taken from its queue."""
        if isinstance(self.awaitable, Hook) and self.future is None:
            return await self.awaitable.take()
        assert self.future is not None
        return self.future.result()

    def read(self, result: Any) -> Any:
        """The result as ``race`` returns it."""
        return self.awaitable.read(result) if isinstance(self.awaitable, Hook) else result

    def put_back(self, result: Any) -> None:
        """Leave a hook's payload for the next task that awaits the hook."""
        if isinstance(self.awaitable, Hook):
            self.awaitable.put_back(result)

    def cancel(self) -> None:
        """Cancel a loser, also one that the race has not begun to wait for."""
        if self.future is not None:
            self.future.cancel()
        elif inspect.iscoroutine(self.awaitable):
            self.awaitable.close()


def race(loop: DurableLoop, awaitables: Sequence[Awaitable[Any]]) -> asyncio.Future[Any]:
    """Start all of *awaitables*, and return the first outcome once the others are cancelled and have ended."""
    entrants = [_Entrant(each) for each in awaitables]
    settled = [(at, n) for n, each in enumerate(entrants) if (at := each.settled_at(loop)) is not None]
    winner = entrants[min(settled)[1]] if settled else None
    if winner is None:
        for each in entrants:
            each.start(loop)
    # A task that is cancelled before its first step runs no `finally`, so the entrants are cancelled here.
    return loop.create_call(_run_race(loop, winner, entrants), "race", lambda _: _cancel(entrants))


async def _run_race(loop: DurableLoop, winner: _Entrant | None, entrants: list[_Entrant]) -> Any:
    """
    The outcome of the first entrant that finishes.

    Args:
        winner: The entrant that had an outcome before the race began.  None: all entrants have started.
    """
    if winner is not None:
        if winner.settled_at(loop) is not None:
            return await _win(winner, entrants)
        for each in entrants:  # another task has taken the payload meanwhile
            each.start(loop)
    first: asyncio.Future[_Entrant] = loop.create_future()

    def finish(entrant: _Entrant) -> None:
        if not first.done():
            first.set_result(entrant)

    for each in entrants:
        assert each.future is not None
        each.future.add_done_callback(lambda _, entrant=each: finish(entrant))  # type: ignore[misc]
    try:
        winner = await first
    except BaseException:
        await _cancel_and_wait(entrants)
        raise
    return await _win(winner, entrants)


async def _win(winner: _Entrant, entrants: list[_Entrant]) -> Any:
    """Cancel the losers, wait until they have ended, and return the winner's result."""
    losers = [each for each in entrants if each is not winner]
    try:
        result = await winner.result()
    except BaseException:
        await _cancel_and_wait(losers)
        raise
    try:
        await _cancel_and_wait(losers)
    except BaseException:
        winner.put_back(result)  # the race was cancelled while the losers cleaned up
        raise
    return winner.read(result)


async def _cancel_and_wait(losers: list[_Entrant]) -> None:
    _cancel(losers)
    running = [each.future for each in losers if each.future is not None and not each.future.done()]
    if running:
        await asyncio.wait(running)
    for each in losers:
        future = each.future
        # A loser that has a result all the same: its exception is ignored, its payload goes back to the hook.
        if future is not None and future.done() and not future.cancelled() and future.exception() is None:
            each.put_back(future.result())


def _cancel(entrants: list[_Entrant]) -> None:
    for each in entrants:
        each.cancel()
