"""
``celery.current_task``, and its request, in ``async def`` steps.

Celery keeps both on stacks that belong to a thread.  The coroutines of all steps share one thread, so there each
step's context has stacks of its own, which the asyncio tasks that it makes see too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from celery._state import _task_stack
from celery.utils.threads import get_ident

#: What the stacks of this context go by; None: by the thread, or greenlet.
_owner: ContextVar[object | None] = ContextVar("durable_celery_stacks", default=None)


class CurrentTask:
    """The Celery task that runs where this is made, and its request."""

    def __init__(self) -> None:
        self._task = _task_stack.top
        self._request = None if self._task is None else self._task.request_stack.top

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within it that task is the current one, in this context only."""
        if self._task is None:
            yield
            return
        _owner.set(object())
        held = ((_task_stack, self._task), (self._task.request_stack, self._request))
        for stack, item in held:
            stack.__ident_func__ = _ident
            stack.push(item)
        try:
            yield
        finally:
            for stack, _ in held:
                stack.pop()


def _ident() -> object:
    return _owner.get() or get_ident()
