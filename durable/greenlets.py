"""
Greenlets: how blocking code runs in an event loop without a thread.

A client call is ordinary code that waits for SQL where it stands.  In an event loop it runs in a greenlet: where it
would wait, it hands the loop an awaitable and is suspended, as SQLAlchemy's asyncio extension does it::

    await greenlets.run(in_thread, call, *args)     # in the event loop
    greenlets.wait(awaitable)                       # in the call, instead of ``await``
    greenlets.in_thread(function, *args)            # in the call, for code that can only block

A greenlet shares the thread of its loop with all others.  So the call must not wait at a lock that another greenlet
may hold while it is suspended.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

#: Calls a function in a thread, and waits for what it returns.
InThread = Callable[..., Awaitable[Any]]

#: ``greenlet.getcurrent``, once a call has run in a greenlet; a process without event loops imports no greenlet.
_current: Callable[[], Any] = lambda: None  # noqa: E731


def are_available() -> bool:
    """Whether the package ``greenlet`` is installed; it comes with the extra ``postgres``."""
    return importlib.util.find_spec("greenlet") is not None


async def run(in_thread: InThread, call: Callable[..., T], *args: Any) -> T:
    """
    Call a function in a greenlet, and return what it returns.

    A cancellation is raised in the function where it waits.

    Args:
        in_thread: Runs in a thread what the function gives to ``in_thread``.
    """
    global _current
    from greenlet import getcurrent  # type: ignore[import-untyped,unused-ignore]
    from sqlalchemy.util import greenlet_spawn

    _current = getcurrent

    def begin() -> T:
        getcurrent().durable_in_thread = in_thread
        return call(*args)

    return await greenlet_spawn(begin)


def is_current() -> bool:
    """Whether this code runs in such a greenlet, and so may ``wait``."""
    return hasattr(_current(), "durable_in_thread")


def wait(awaitable: Awaitable[T]) -> T:
    """Wait for something in the greenlet's event loop, and return its result."""
    from sqlalchemy.util import await_only

    return await_only(awaitable)


def in_thread(call: Callable[..., T], *args: Any) -> T:
    """Call a function that blocks: in a thread if this is a greenlet, else here."""
    runs: InThread | None = getattr(_current(), "durable_in_thread", None)
    if runs is None:
        return call(*args)
    result: T = wait(runs(call, *args))
    return result
