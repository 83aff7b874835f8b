"""The wait of an ASGI request for its client to disconnect, which an answer or the time ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType


class ClientWait:
    """
    Ends what the task waits for inside of ``with``: when the time is over, or when ``end`` is called on any thread.

    ::

        wait.begin(secs, waiter.when_released)
        with wait:
            await receive()

    It is ``asyncio.timeout`` with an end that can come early, for thousands of waits: the request's own task watches
    its client, because a second task would take 2 KiB more, and this object is all that the wait takes beside it.
    """

    __slots__ = ("_cancelling", "_is_ended", "_is_open", "_task", "_timer", "was_called")

    def begin(self, secs: float, when: Callable[[Callable[[], None]], object]) -> None:
        """
        Begin a wait of so many seconds.

        Args:
            when: Called with the function that ends the wait.
        """
        task = asyncio.current_task()
        assert task is not None, "an ASGI request is a task"
        self._task = task
        self._cancelling = task.cancelling()
        self._is_open, self._is_ended = True, False
        #: Whether ``end`` was called.
        self.was_called = False
        self._timer = task.get_loop().call_later(secs, self._interrupt)
        when(self.end)

    def end(self) -> None:
        """End the wait, from any thread."""
        self.was_called = True
        # The loop may be closed.
        with contextlib.suppress(RuntimeError):
            self._task.get_loop().call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        # The wait may be over.
        if self._is_open:
            self._is_open, self._is_ended = False, True
            self._task.cancel()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._is_open = False
        self._timer.cancel()
        # Another cancellation may have come too; that one counts.
        is_ours = self._is_ended and self._task.uncancel() <= self._cancelling
        return is_ours and kind is asyncio.CancelledError
