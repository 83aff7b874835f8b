"""
Where asyncio itself is not deterministic, or differs between Python versions, it is made to be neither.

``wait_for`` of Python 3.11 wraps a coroutine in a task, later ones do not:
operations would change their names with the Python version.  ``as_completed``
and ``wait`` go through sets, whose order is that of memory addresses.

Each shim acts only while a workflow's loop runs in this thread; everybody
else gets the stock function.  A module that said ``from asyncio import
wait_for`` before we came holds the function object itself, so it is the
object's code that is exchanged, not the name: else a run would replay one way
or the other by the order of imports.
"""

from __future__ import annotations

import asyncio.tasks
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any


def _redirect(function: Any, replacement: Callable[..., Any], **names: Any) -> None:
    """Give *function* the code of *replacement*, which sees *names* and the stock one as globals."""
    stock = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    stock.__kwdefaults__ = function.__kwdefaults__
    key = f"_durable_{function.__name__}"
    function.__globals__.update({f"{key}_stock": stock, **{f"{key}_{k}": v for k, v in names.items()}})
    function.__code__ = replacement.__code__


async def _wait_for(fut, timeout):  # type: ignore[no-untyped-def]
    # Runs among the globals of asyncio.tasks.  As Python 3.12 has it.
    if not getattr(events.get_running_loop(), "is_durable", False):  # type: ignore[name-defined]  # noqa: F821
        return await _durable_wait_for_stock(fut, timeout)  # type: ignore[name-defined]  # noqa: F821
    if timeout is None or timeout > 0:
        async with _durable_wait_for_timeout(timeout):  # type: ignore[name-defined]  # noqa: F821
            return await fut
    fut = ensure_future(fut)  # type: ignore[name-defined]  # noqa: F821
    if fut.done():
        return fut.result()
    await _cancel_and_wait(fut, events.get_running_loop())  # type: ignore[name-defined]  # noqa: F821
    try:
        return fut.result()
    except exceptions.CancelledError as exc:  # type: ignore[name-defined]  # noqa: F821
        raise TimeoutError from exc


def _as_completed(fs, *, timeout=None):  # type: ignore[no-untyped-def]
    # Runs among the globals of asyncio.tasks.  Tasks are made in the order of the list.
    loop = events._get_running_loop()  # type: ignore[name-defined]  # noqa: F821
    if getattr(loop, "is_durable", False) and isinstance(fs, list | tuple | set | frozenset):
        fs = [ensure_future(f, loop=loop) for f in dict.fromkeys(fs)]  # type: ignore[name-defined]  # noqa: F821
    return _durable_as_completed_stock(fs, timeout=timeout)  # type: ignore[name-defined]  # noqa: F821


def _hash_of_gather(future: Any) -> int:
    """``gather`` makes futures that are not ours: they get their ordinal when first put in a set."""
    loop = future.get_loop()
    if not getattr(loop, "is_durable", False):
        return object.__hash__(future)
    if "_durable_ordinal" not in future.__dict__:
        future._durable_ordinal = next(loop.ordinals)
    return int(future._durable_ordinal)


_installed: list[bool] = []


def install() -> None:
    """Put the shims in place, once per process."""
    if _installed:
        return
    _installed.append(True)
    if sys.version_info < (3, 12):
        _redirect(asyncio.tasks.wait_for, _wait_for, timeout=asyncio.timeout)
    _redirect(asyncio.tasks.as_completed, _as_completed)
    asyncio.tasks._GatheringFuture.__hash__ = _hash_of_gather  # type: ignore[attr-defined]
