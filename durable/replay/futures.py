"""
The futures, tasks and timers of the deterministic loop.

They hash by an ordinal that the loop counts, so that sets of them, which
``asyncio.wait`` and ``TaskGroup`` use, iterate alike in every process.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Iterator
from typing import Any, Protocol, cast


class OrdinalLoop(Protocol):
    """What they ask of their loop."""

    ordinals: Iterator[int]

    def next_stamp(self) -> int: ...

    def withdraw(self, op_id: str) -> None: ...


class Parked(BaseException):
    """Raised by durable calls while a workflow is being put away, or has diverged from its log."""


class Timer(asyncio.TimerHandle):
    """A timer of asyncio's own (``sleep``, ``timeout``), which is a durable wait."""

    __slots__ = ("op_id",)
    op_id: str | None


class OrdinalFuture(asyncio.Future[Any]):
    """A future that hashes by its ordinal, so that sets of them iterate alike everywhere."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        self.ordinal = next(cast(OrdinalLoop, loop).ordinals)  # before super(), which may hash us
        #: When it was resolved, in the loop's count of such moments; None: not yet, or not known.
        self.settled: int | None = None
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.ordinal


class OpFuture(OrdinalFuture):
    """The outcome of an operation.  Cancelling it gives the operation up."""

    op_id: str | None = None

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Resolve the future with what the log says."""
        if self.done():
            return
        self.settled = cast(OrdinalLoop, self.get_loop()).next_stamp()
        if error is None:
            self.set_result(value)
        else:
            self.set_exception(error)
            self.exception()  # it is in the log: nobody has to be told that nobody awaited it

    def cancel(self, msg: Any | None = None) -> bool:
        cancelled = super().cancel(msg=msg)
        if cancelled and self.op_id is not None:
            cast(OrdinalLoop, self.get_loop()).withdraw(self.op_id)
        return cancelled


class OrdinalTask(asyncio.Task[Any]):
    """A task with a path for a name, that hashes by its ordinal."""

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        loop: asyncio.AbstractEventLoop,
        path: str,
        context: contextvars.Context | None,
    ) -> None:
        self.ordinal, self.path = next(cast(OrdinalLoop, loop).ordinals), path
        self.settled: int | None = None
        self.context = contextvars.copy_context() if context is None else context  # get_context() is 3.12+
        super().__init__(coro, loop=loop, name=path, context=self.context)
        self._log_destroy_pending = False
        # asyncio's registry of all tasks is one set per process.  Ours hash alike from run to run,
        # and those of parked workflows stay: it would become slow, and no other loop's business.
        asyncio._unregister_task(self)

    def __hash__(self) -> int:
        return self.ordinal
