"""
Where ``async def`` steps run: one event loop per process, in a thread of its own.

It is made when the first one runs, after any fork, and lives on, so that
clients which belong to a loop (HTTP sessions, connection pools) may be kept
from step to step.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from ..broker import celery_internals

_loops: dict[int, asyncio.AbstractEventLoop] = {}
_lock = threading.Lock()


class Running:
    """A coroutine that runs in this process's loop, in the context of whoever made this."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._outcome: Future[Any] = Future()
        self._task: asyncio.Task[Any] | None = None
        self._current = celery_internals.CurrentTask()
        self._loop = _loop()
        self._loop.call_soon_threadsafe(self._launch, coroutine, contextvars.copy_context())

    def result(self) -> Any:
        """Wait for its end: what it returned, or raised."""
        try:
            return self._outcome.result()
        except BaseException:
            # If that was no end but an interruption (a soft time limit), nobody waits for it any more.
            self.cancel()
            raise

    def cancel(self) -> None:
        """Raise CancelledError in it, from any thread; what has ended stays as it is."""
        self._loop.call_soon_threadsafe(self._cancel)

    def abandon(self) -> None:
        """Wait for it no longer: ``result`` raises CancelledError, though the loop may hang in it."""
        with suppress(InvalidStateError):
            self._outcome.set_exception(asyncio.CancelledError())

    def _launch(self, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context) -> None:
        self._task = self._loop.create_task(self._contain(coroutine), context=context)
        self._task.add_done_callback(lambda done: self._over(done, coroutine))

    async def _contain(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        with self._current.entered(), suppress(InvalidStateError):  # it was abandoned
            try:
                result = await coroutine
            except BaseException as error:
                # An exit too, and raised here no more: asyncio would end the loop with it.
                self._outcome.set_exception(error)
            else:
                self._outcome.set_result(result)

    def _over(self, done: asyncio.Task[Any], coroutine: Coroutine[Any, Any, Any]) -> None:
        if done.cancelled():  # before it began
            coroutine.close()
            self.abandon()

    def _cancel(self) -> None:
        assert self._task is not None  # the loop has called `_launch` first
        self._task.cancel()


def _loop() -> asyncio.AbstractEventLoop:
    with _lock:
        if os.getpid() not in _loops:
            _loops.clear()
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=_run, args=(loop,), name="durable-async-steps", daemon=True).start()
        return _loops[os.getpid()]


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """
    Run the loop for good.

    A task of a step's that exits has got its SystemExit or KeyboardInterrupt when asyncio raises it here: the step
    hears of it where it awaits the task, and the other steps go on.
    """
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            continue
        return
