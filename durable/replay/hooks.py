"""
Hooks: queues that the log fills, and that a workflow awaits.

Only the task that goes on with a payload takes it out of the queue.  A task
that is cancelled, or that loses a race, leaves the payload for the next one.

Leaving ``async for payload in hook`` (by break, return or an exception) closes
the hook.  CPython then drops the iterator at once, before the next statement
runs, and ``_HookIterator.__del__`` closes the hook; so this happens at the same
place on every replay.  An async generator would be closed several turns later.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ..errors import HookClosed, HookConflict
from ..http import Request
from .loop import DurableLoop

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Received:
    """
    An item of a hook's queue: a webhook's request, or an encoded payload with the requests that it refers to.

    A question has both a payload and a request, which is what its reply answers.
    """

    stamp: int
    payload: str | None = None
    request: Request | None = None
    requests: Mapping[str, Request] = field(default_factory=dict)


class Hook(Generic[T]):
    """
    Receives payloads from outside the run.

    ``await hook`` returns the next payload.  ``async for payload in hook`` returns each, and closes the
    hook when you leave the loop.  ``with create_hook() as hook:`` closes it at the end of the block.

    Attributes:
        token: The address of the hook: ``resume_hook(token, payload)``.
    """

    def __init__(
        self,
        loop: DurableLoop,
        op_id: str | None,
        token: str,
        read: Callable[[Received], T],
        closed: Callable[[Hook[Any]], None],
        label: str | None = None,
    ) -> None:
        self.token = token
        #: The name by which the next generation finds the hook.
        self.label = label
        self._loop = loop
        self.op_id = op_id
        self._read = read
        self._on_close = closed
        self._buffer: collections.deque[Received] = collections.deque()
        #: What a race has taken out of the queue and not read yet, by stamp.
        self._in_race: dict[int, Received] = {}
        self._waiters: collections.deque[asyncio.Future[None]] = collections.deque()
        self._registered = False
        self._owner: str | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.op_id}{' (closed)' if self._closed else ''}>"

    # For authors

    def __await__(self) -> Generator[Any, None, T]:
        return self._next().__await__()

    def __aiter__(self) -> AsyncIterator[T]:
        return _HookIterator(self, self._loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def get_conflict(self) -> str | None:
        """None once the token is registered for this run, else the id of the run that holds it."""
        while not self._registered and self._owner is None:
            await self._wait()
        return self._owner

    def close(self) -> None:
        """Stop listening.  Payloads in the queue can still be awaited.  A second call does nothing."""
        if self._closed or self._loop.closing:
            return
        self._closed = True
        self._on_close(self)
        self._wake_all()

    # For the replay

    @property
    def has_conflict(self) -> bool:
        """Whether the log says that another run holds the token."""
        return self._owner is not None

    @property
    def open(self) -> bool:
        """Whether the hook is neither closed nor in conflict."""
        return not self._closed and self._owner is None

    @property
    def queue(self) -> collections.deque[Received]:
        """What the workflow has received and not taken yet."""
        return self._buffer

    @property
    def unread(self) -> list[Received]:
        """What the workflow has received and not read, in the order received."""
        return sorted((*self._in_race.values(), *self._buffer), key=lambda received: received.stamp)

    def put(self, received: Received) -> None:
        """Add to the queue, and wake a task that waits."""
        self._buffer.append(received)
        self._wake()

    def mark_registered(self) -> None:
        """The log says that the token is this run's."""
        self._registered = True
        self._wake_all()

    def mark_conflicted(self, owner: str) -> None:
        """The log says that the run *owner* holds the token."""
        self._owner = owner
        self._wake_all()

    # For races

    async def take(self) -> Received:
        """Wait for the next item and take it out of the queue, without decoding it."""
        while True:
            if self._owner is not None:
                raise HookConflict(self.token, self._owner)
            if self._buffer:
                received = self._buffer.popleft()
                self._in_race[received.stamp] = received
                return received
            if self._closed:
                raise HookClosed(self.token)
            await self._wait()

    def put_back(self, received: Received) -> None:
        """Put back what ``take`` returned, when the task that took it does not use it."""
        self._in_race.pop(received.stamp, None)
        self._buffer.appendleft(received)
        self._wake()

    def read(self, received: Received) -> T:
        """The payload of an item, decoded."""
        self._in_race.pop(received.stamp, None)
        return self._read(received)

    # Waiting

    async def _next(self, *, iterates: bool = False) -> T:
        """The next payload.  A closed hook ends ``async for``, and raises HookClosed elsewhere."""
        try:
            received = await self.take()
        except HookClosed:
            if iterates:
                raise StopAsyncIteration from None
            raise
        return self.read(received)

    async def _wait(self) -> None:
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter  # resolved without a value: the payload stays in the queue
        except BaseException:
            waiter.cancel()
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
            if self._buffer and not waiter.cancelled():
                self._wake()  # it was woken and cancelled at the same time: wake the next task instead
            raise

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_all(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


class Webhook(Hook[Request]):
    """
    A hook with a URL.  Each HTTP request to the URL is a payload.

    Attributes:
        url: The URL, the same on every replay.
    """

    url: str


class _HookIterator(Generic[T]):
    """The iterator of one ``async for``.  Only the frame of that loop may refer to it."""

    def __init__(self, hook: Hook[T], loop: DurableLoop) -> None:
        self._hook = hook
        self._loop = loop

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, T]:
        # No ``async def``: the traceback of its error would refer to this object, and delay __del__.
        return self._hook._next(iterates=True)

    def __del__(self) -> None:
        if not self._loop.closing and asyncio._get_running_loop() is self._loop:
            self._hook.close()
