"""
Parking: how a suspended coroutine is removed from memory.  It is closed, not cancelled.

Closing runs the ``finally`` and ``except BaseException`` blocks of a coroutine.
It does not run ``except Exception`` or ``except CancelledError`` blocks: those
would undo work that has not failed.

Dropping the references is no alternative.  The garbage collector would close
the coroutine later, at any moment and in any thread.  That is outside of the
run, where calling a step runs its function.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections.abc import AsyncGenerator, Callable
from typing import Any

from .futures import OrdinalTask

#: How often to close a coroutine that awaits something each time it is closed.
MAX_CLOSINGS = 16


def close(task: OrdinalTask) -> bool:
    """Close the coroutine of *task* in its own context; False when that fails and the coroutine stays in memory."""
    coro: Any = task.get_coro()
    loop = task.get_loop()
    # A `finally` block may ask for the current task; asyncio.timeout raises without one.
    asyncio._enter_task(loop, task)
    try:
        return _try_to_close(coro, task.context.run)
    finally:
        asyncio._leave_task(loop, task)


def _try_to_close(coro: Any, run: Callable[[Callable[[], None]], None]) -> bool:
    for _ in range(MAX_CLOSINGS):
        try:
            run(coro.close)
        except RuntimeError as error:
            if "GeneratorExit" in str(error):
                continue  # "coroutine ignored GeneratorExit": it awaited something; close it again
        except BaseException:
            pass  # Parked, or an error of the author's `finally`, which has no caller to go to
        return True
    # Keep it for ever, since the garbage collector and the exit of Python would try to close it without end.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(coro))
    return False


def close_awaited(gen: AsyncGenerator[Any, Any]) -> bool:
    """
    Close the awaitable that an async generator waits for; False as in ``close``.

    Up to Python 3.12, closing the task stops at the generator and skips the generator's own ``finally``.
    """
    awaited: Any = gen.ag_await  # type: ignore[attr-defined]
    return not hasattr(awaited, "close") or _try_to_close(awaited, lambda close: close())


def close_generator(gen: AsyncGenerator[Any, Any]) -> None:
    """Close an async generator that no task iterates any more."""
    with contextlib.suppress(BaseException):
        gen.aclose().send(None)
