"""Waiters: held connections that wait for the answer to a request."""

from __future__ import annotations

import queue
from collections.abc import Callable

from ..http import Response


class Waiter:
    """One held connection."""

    __slots__ = ("_call", "_released", "is_gone", "request_id")

    def __init__(self, request_id: str, is_gone: Callable[[], bool]) -> None:
        self.request_id = request_id
        self.is_gone = is_gone
        # Only the first item counts.  An Event would do, but takes a kilobyte.  The class is looked up in its module
        # here, because gevent may have replaced it since the import.
        self._released: queue.SimpleQueue[Response | None] = queue.SimpleQueue()
        self._call: Callable[[], None] | None = None

    def wait(self, timeout_secs: float) -> Response | None:
        """Return the answer; None if none came in time, the client disconnected, or the process is being stopped."""
        try:
            return self._released.get(timeout=timeout_secs)
        except queue.Empty:
            return None

    def release(self, answer: Response | None) -> None:
        """End the wait, with an answer or without one."""
        self._released.put(answer)
        if self._call is not None:
            self._call()

    def when_released(self, call: Callable[[], None]) -> None:
        """Call *call* once the waiter is released, on any thread; it may be called twice."""
        self._call = call
        # It may have been released before the line above, by a thread that has not seen it.
        if not self._released.empty():
            call()


class Waiters:
    """
    Waiters by the id of the request that they wait for; a request with copies has several.

    The hub's lock guards it.  ``len`` takes the same time with one waiter and with thousands: each request asks for it.
    """

    def __init__(self) -> None:
        self._of_requests: dict[str, tuple[Waiter, ...]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._of_requests

    def request_ids(self) -> tuple[str, ...]:
        """The requests that are waited for."""
        return tuple(self._of_requests)

    def of(self, request_id: str) -> tuple[Waiter, ...]:
        """The waiters for one request."""
        return self._of_requests.get(request_id, ())

    def all(self) -> tuple[Waiter, ...]:
        """Every waiter."""
        return tuple(waiter for of_one in self._of_requests.values() for waiter in of_one)

    def add(self, waiter: Waiter) -> None:
        """Add a waiter for its request."""
        self._of_requests[waiter.request_id] = (*self.of(waiter.request_id), waiter)
        self._count += 1

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter, if it is there."""
        for each in self.pop(waiter.request_id):
            if each is not waiter:
                self.add(each)

    def pop(self, request_id: str) -> tuple[Waiter, ...]:
        """Remove and return the waiters for one request."""
        waiters = self._of_requests.pop(request_id, ())
        self._count -= len(waiters)
        return waiters
