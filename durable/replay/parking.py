"""
Putting a suspended coroutine away: it is closed, not cancelled.

Closing runs its ``finally`` and ``except BaseException``, but no ``except
Exception`` and no ``except CancelledError``: those would compensate for what
has not failed.  To drop the references instead would have the collector do
the same later, at any moment and in any thread: outside of the run, where a
call of a step runs its function.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections.abc import AsyncGenerator, Callable
from typing import Any

from .futures import OrdinalTask

#: How often a coroutine is closed that awaits something whenever it is closed.
MAX_CLOSINGS = 16


def close(task: OrdinalTask) -> bool:
    """Close the coroutine of *task* in its own context; False where it cannot be, and is kept for ever."""
    coro: Any = task.get_coro()
    loop = task.get_loop()
    # Its own `finally` may ask which task it is; a timeout without one would fail before it waits.
    asyncio._enter_task(loop, task)
    try:
        return _closes(coro, task.context.run)
    finally:
        asyncio._leave_task(loop, task)


def _closes(coro: Any, run: Callable[[Callable[[], None]], None]) -> bool:
    for _ in range(MAX_CLOSINGS):
        try:
            run(coro.close)
        except RuntimeError as error:
            if "GeneratorExit" in str(error):
                continue  # "coroutine ignored GeneratorExit": it awaited; close it again
        except BaseException:
            pass  # Parked, or the author's own: nobody is there to hear it
        return True
    # The collector, and the exit of Python, would try the same without end.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(coro))
    return False


def close_awaited(gen: AsyncGenerator[Any, Any]) -> bool:
    """
    Close what an async generator waits for; False as in ``close``.

    Up to Python 3.12 closing the task does not get that far: it ends at the generator, and the
    generator's own ``finally`` is skipped.
    """
    awaited: Any = gen.ag_await  # type: ignore[attr-defined]
    return not hasattr(awaited, "close") or _closes(awaited, lambda close: close())


def close_generator(gen: AsyncGenerator[Any, Any]) -> None:
    """Close an async generator that nothing iterates any more."""
    with contextlib.suppress(BaseException):
        gen.aclose().send(None)
