"""
Threads in which an event loop lets blocking calls run: SQL, and messages to the broker.

An asyncio program must not wait for them in its loop.  There are no more threads than connections to the database, so
that none of them waits for a connection.  What waits longer than a call waits in the loop, without a thread.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")
W = TypeVar("W")


class CallThreads:
    """The threads of one engine in one process."""

    def __init__(self, size: int) -> None:
        self._pool = ThreadPoolExecutor(size, "durable-call")

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """Call a function in a thread, with the caller's context variables, and wait for what it returns."""
        context = contextvars.copy_context()
        done = asyncio.get_running_loop().run_in_executor(self._pool, partial(context.run, call, *args))
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            # The thread goes on.  What it uses must not be closed meanwhile.
            await asyncio.wait([done])
            raise

    def close(self) -> None:
        """End the threads, each after its call."""
        self._pool.shutdown(wait=False)


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
