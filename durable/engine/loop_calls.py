"""
Calls that an event loop waits for: how code that waits for SQL and for the broker runs beside a loop.

On PostgreSQL the call runs in a greenlet of the loop, and waits there for psycopg's asynchronous connections.  Only
what can do nothing but block (the broker, files, functions of the application) takes a thread.  With other databases
the whole call runs in a thread.

There are no more calls at once than connections to the database, so that none of them waits for a connection.  What
waits longer than a call waits in the loop, without a thread and without a connection.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from .. import greenlets
from .interrupts import has_threads

T = TypeVar("T")
W = TypeVar("W")

#: For so long a loop's calls run in threads, which share the connections of the process.  A view of Flask or of Django
#: under WSGI has a loop for one request: to connect to the database would cost more than its calls.
SETTLED_SECS = 1.0


class LoopCalls:
    """
    The calls of one engine in one process.

    Args:
        size: How many run at once in a loop, and in threads.
        waits_in_loop: Whether the connections to the database can be waited for in a greenlet.
    """

    def __init__(self, size: int, *, waits_in_loop: bool) -> None:
        self.settled_secs = SETTLED_SECS
        self._size = size
        self._uses_greenlets = waits_in_loop and greenlets.are_available() and has_threads()
        self._loops: WeakKeyDictionary[AbstractEventLoop, _Loop] = WeakKeyDictionary()
        self._threads = ThreadPoolExecutor(size, "durable-call")

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """
        Do a call with the caller's context variables, and return what it returns.

        In a greenlet, a cancellation ends the statement that it waits for, and rolls its transaction back.  In a
        thread the call goes on to its end first.
        """
        return await self._run(call, args, is_next=False)

    async def run_next(self, call: Callable[..., T], *args: Any) -> T:
        """Do a call that goes on with something, before those that begin something new.  Not so in threads."""
        return await self._run(call, args, is_next=True)

    async def _run(self, call: Callable[..., T], args: tuple[Any, ...], *, is_next: bool) -> T:
        if not self._uses_greenlets:
            return await self.in_thread(call, *args)
        running = asyncio.get_running_loop()
        loop = self._loops.get(running)
        if loop is None:
            loop = self._loops[running] = _Loop(_Places(self._size))
        if time.monotonic() - loop.since < self.settled_secs:
            return await self.in_thread(call, *args)
        await loop.places.take(is_next=is_next)
        try:
            return await greenlets.run(self.in_thread, call, *args)
        finally:
            loop.places.give_back()

    async def in_thread(self, call: Callable[..., T], *args: Any) -> T:
        """Do a call in a thread in any case, because it runs code that may block."""
        context = contextvars.copy_context()
        done = asyncio.get_running_loop().run_in_executor(self._threads, partial(context.run, call, *args))
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            # The thread goes on.  What it uses must not be closed meanwhile.
            await asyncio.wait([done])
            raise

    def close(self) -> None:
        """End the threads, each after its call."""
        self._threads.shutdown(wait=False)


class _Places:
    """How many calls of a loop may run at once.  The others wait, in the order in which they came."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, *, is_next: bool) -> None:
        """Wait for a place; with *is_next* before all that wait now."""
        if self._free:
            self._free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        if is_next:
            self._waiting.appendleft(place)
        else:
            self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self.give_back()  # it was given to this call meanwhile
            raise

    def give_back(self) -> None:
        """Give a place to the first that waits."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1


@dataclass(frozen=True, slots=True)
class _Loop:
    """An event loop, and when it made its first call."""

    places: _Places
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Returned(Generic[T]):
    """A generator has returned this."""

    result: T


def advance(generator: Generator[W, None, T]) -> W | Returned[T]:
    """Continue a generator; return what it yields, or that it has ended.  (A future cannot carry StopIteration.)"""
    try:
        return next(generator)
    except StopIteration as end:
        return Returned(end.value)
