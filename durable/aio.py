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
from concurrent.futures import Future
from typing import Any

_loops: dict[int, asyncio.AbstractEventLoop] = {}
_lock = threading.Lock()


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in this process's loop, in the caller's context, and wait for its result."""
    outcome: Future[Any] = Future()
    context = contextvars.copy_context()
    _loop().call_soon_threadsafe(_launch, coroutine, context, outcome)
    return outcome.result()


def _loop() -> asyncio.AbstractEventLoop:
    with _lock:
        if os.getpid() not in _loops:
            _loops.clear()
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="durable-async-steps", daemon=True).start()
        return _loops[os.getpid()]


def _launch(coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, outcome: Future[Any]) -> None:
    task = asyncio.get_running_loop().create_task(coroutine, context=context)
    task.add_done_callback(lambda done: _hand_over(done, outcome))


def _hand_over(done: asyncio.Task[Any], outcome: Future[Any]) -> None:
    if done.cancelled():
        outcome.set_exception(asyncio.CancelledError())
        return
    error = done.exception()
    if error is None:
        outcome.set_result(done.result())
    else:
        outcome.set_exception(error)
