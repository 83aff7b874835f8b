"""
The event loop of ``async def`` steps: one per process, in a thread of its own.

It starts with the first such step, after any fork, and runs as long as the process.  So a client that belongs to a loop
(an HTTP session, a connection pool) can be kept from step to step.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from .. import forks
from ..broker import celery_internals

_lock: threading.Lock
_loop: asyncio.AbstractEventLoop | None = None
_of_parents: list[asyncio.AbstractEventLoop] = []


def _begin_in_process() -> None:
    """Start without a loop, in this process or in a child."""
    global _lock, _loop
    _lock = threading.Lock()
    if _loop is not None:
        # Kept, since a loop that is garbage may close itself, and the parent's waits at the same file descriptors.
        _of_parents.append(_loop)
        _loop = None


_begin_in_process()
forks.call_in_child(_begin_in_process)


class RunningCoroutine:
    """A coroutine in this process's event loop.  It runs in the context variables of the caller that starts it."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._outcome: Future[Any] = Future()
        self._task: asyncio.Task[Any] | None = None
        self._current = celery_internals.CurrentTask()
        try:
            self._loop = _ensure_loop()
        except BaseException:
            coroutine.close()
            raise
        self._loop.call_soon_threadsafe(self._launch, coroutine, contextvars.copy_context())

    def result(self) -> Any:
        """Wait for the coroutine to end.  Return what it returned, or raise what it raised."""
        try:
            return self._outcome.result()
        except BaseException:
            # The wait may have been interrupted, by a soft time limit: nobody waits for the coroutine any more.
            self.cancel()
            raise

    def cancel(self) -> None:
        """Raise CancelledError in the coroutine, unless it has ended.  May be called in any thread."""
        self._loop.call_soon_threadsafe(self._cancel)

    def abandon(self) -> None:
        """Stop waiting: ``result`` raises CancelledError, even while the loop hangs in the coroutine."""
        with suppress(InvalidStateError):
            self._outcome.set_exception(asyncio.CancelledError())

    def _launch(self, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context) -> None:
        def close_unstarted(done: asyncio.Task[Any]) -> None:
            if done.cancelled():  # before it started
                coroutine.close()
                self.abandon()

        self._task = self._loop.create_task(self._contain(coroutine), context=context)
        self._task.add_done_callback(close_unstarted)

    async def _contain(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        with self._current.entered(), suppress(InvalidStateError):  # after `abandon`
            try:
                result = await coroutine
            except BaseException as error:
                # SystemExit too: raised again here, it would end the event loop.
                self._outcome.set_exception(error)
            else:
                self._outcome.set_result(result)

    def _cancel(self) -> None:
        assert self._task is not None  # the loop has called `_launch` first
        self._task.cancel()


def _ensure_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            loop = asyncio.new_event_loop()
            try:
                threading.Thread(target=_run, args=(loop,), name="durable-async-steps", daemon=True).start()
            except RuntimeError:
                # Out of threads.  The next step tries again.
                loop.close()
                raise
            _loop = loop
        return _loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """
    Run the loop as long as the process.

    asyncio raises a task's SystemExit or KeyboardInterrupt here too.  The step gets it where it awaits that task, so it
    is ignored here, and the other steps go on.
    """
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            continue
        return
