"""
asyncio is not deterministic, or differs between Python versions, in five places.  This module patches them.

- ``wait_for`` of Python 3.11 wraps a coroutine in a task, and later versions do
  not.  The op ids of operations would depend on the Python version.
- ``as_completed`` iterates a set of coroutines, in the order of their memory
  addresses.
- ``gather`` returns futures that hash by their memory addresses.
- ``Condition.wait`` of Python 3.13 wakes another waiter whenever one is
  cancelled.  Older versions never do.
- Up to Python 3.12, a ``TaskGroup`` whose tasks fail loses a cancellation that
  comes at the same time.

Each patch acts only while a workflow's loop runs in the thread; all other code
gets the original function.  A module that ran ``from asyncio import wait_for``
before the patch holds the function object itself.  So the patch replaces the
code of the function object, not the name in asyncio's module; otherwise a
replay would depend on the order of imports.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import locks, taskgroups, tasks
from collections.abc import Awaitable, Callable, Iterable
from types import FunctionType
from typing import Any

from .. import current


def _copy(function: Any) -> Any:
    """A new function object with the code that *function* has now."""
    twin = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


_stock_wait_for: Callable[..., Any] = _copy(tasks.wait_for)
_stock_as_completed: Callable[..., Any] = _copy(tasks.as_completed)
_stock_group_exit: Callable[..., Any] = _copy(taskgroups.TaskGroup.__aexit__)
_stock_condition_wait: Callable[..., Any] = _copy(locks.Condition.wait)


async def _wait_for(awaitable: Awaitable[Any], timeout: float | None) -> Any:
    """``wait_for`` as in Python 3.12."""
    if current.workflow_loop() is None:
        return await _stock_wait_for(awaitable, timeout)
    if timeout is None or timeout > 0:
        async with asyncio.timeout(timeout):
            return await awaitable
    future = asyncio.ensure_future(awaitable)
    if not future.done():
        future.cancel()
        await asyncio.wait([future])
    try:
        return future.result()
    except asyncio.CancelledError as error:
        raise TimeoutError from error


def _as_completed(awaitables: Iterable[Any], timeout: float | None) -> Any:
    """``as_completed`` that creates its tasks at the call, in the order of the list."""
    loop = current.workflow_loop()
    if loop is None or asyncio.isfuture(awaitables) or asyncio.iscoroutine(awaitables):
        return _stock_as_completed(awaitables, timeout=timeout)
    futures = [asyncio.ensure_future(each, loop=loop) for each in dict.fromkeys(awaitables)]
    return _stock_as_completed(futures, timeout=timeout)


async def _condition_wait(condition: asyncio.Condition) -> bool:
    """``Condition.wait`` that wakes another waiter only when it is cancelled after it was notified."""
    loop = current.workflow_loop()
    if loop is None or not condition.locked():
        return await _stock_condition_wait(condition)  # type: ignore[no-any-return]
    waiters: Any = condition._waiters
    notified = loop.create_future()
    condition.release()
    waiters.append(notified)
    try:
        try:
            await notified
        finally:
            waiters.remove(notified)
            await _reacquire(condition)
    except asyncio.CancelledError:
        if notified.done() and not notified.cancelled():
            condition.notify()
        raise
    return True


async def _reacquire(condition: asyncio.Condition) -> None:
    """Acquire the lock again, even when the task is cancelled meanwhile; then raise the cancellation."""
    cancelled: asyncio.CancelledError | None = None
    while True:
        try:
            await condition.acquire()
            break
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            cancelled = None  # break the cycle: the exception refers to this frame


async def _group_exit(group: asyncio.TaskGroup, *error: Any) -> Any:
    """
    The end of a ``TaskGroup`` as in Python 3.13.

    When a task of the group fails, the group cancels the task that runs it, in order to wake it.  Older
    versions do not undo that cancellation when the group waits at its end already, so that a timeout
    around the group raises no TimeoutError.
    """
    loop, task = current.workflow_loop(), asyncio.current_task()
    if loop is None or task is None:
        return await _stock_group_exit(group, *error)
    had_cancelled = group._parent_cancel_requested  # type: ignore[attr-defined]

    def cancel_again() -> None:
        if task.cancelling():  # the timeout that had cancelled the task may have ended meanwhile
            task.uncancel()
            task.cancel()

    try:
        return await _stock_group_exit(group, *error)
    except BaseExceptionGroup:
        if group._parent_cancel_requested and not had_cancelled:  # type: ignore[attr-defined]
            task.uncancel()
        if task.cancelling():
            loop.call_soon(cancel_again)
        raise


def _hash_of_gather(future: Any) -> int:
    """A number from the loop, given when the future is first hashed."""
    loop = future.get_loop()
    if not getattr(loop, "is_durable", False):
        return object.__hash__(future)
    ordinal = getattr(future, "durable_ordinal", None)
    if ordinal is None:
        ordinal = future.durable_ordinal = next(loop.ordinals)
    return int(ordinal)


_installed: list[bool] = []


def install() -> None:
    """Install the patches, once per process."""
    if _installed:
        return
    _installed.append(True)
    tasks._GatheringFuture.__hash__ = _hash_of_gather  # type: ignore[attr-defined]

    # Of the four functions below only the code is used, in asyncio's function of that name.  There it runs with
    # the globals of asyncio's module, to which the _durable_… functions are added.

    async def wait_for(fut, timeout):  # type: ignore[no-untyped-def]
        return await _durable_wait_for(fut, timeout)  # type: ignore[name-defined]  # noqa: F821

    def as_completed(fs, *, timeout=None):  # type: ignore[no-untyped-def]
        return _durable_as_completed(fs, timeout)  # type: ignore[name-defined]  # noqa: F821

    async def condition_wait(self):  # type: ignore[no-untyped-def]
        return await _durable_condition_wait(self)  # type: ignore[name-defined]  # noqa: F821

    async def group_exit(self, et, exc, tb):  # type: ignore[no-untyped-def]
        return await _durable_group_exit(self, et, exc, tb)  # type: ignore[name-defined]  # noqa: F821

    vars(tasks).update(_durable_wait_for=_wait_for, _durable_as_completed=_as_completed)
    tasks.as_completed.__code__ = as_completed.__code__
    if sys.version_info < (3, 12):
        tasks.wait_for.__code__ = wait_for.__code__
    vars(locks).update(_durable_condition_wait=_condition_wait)
    locks.Condition.wait.__code__ = condition_wait.__code__
    if sys.version_info < (3, 13):
        vars(taskgroups).update(_durable_group_exit=_group_exit)
        taskgroups.TaskGroup.__aexit__.__code__ = group_exit.__code__
