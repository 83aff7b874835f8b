"""
The futures, tasks and timers of the deterministic loop.

``asyncio.wait`` and ``TaskGroup`` keep futures and tasks in sets.  Ours hash by
a number that the loop counts up, so that these sets have the same order in
every process.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Iterator
from typing import Any, Protocol, cast

from .unawaited import AwaitOnly, set_own


class OrdinalLoop(Protocol):
    """What futures and tasks need from their loop."""

    ordinals: Iterator[int]

    def next_stamp(self) -> int: ...

    def withdraw(self, op_id: str) -> None: ...


class Parked(BaseException):
    """Raised by durable calls while a workflow is closed, or after it has diverged from its log."""


class Timer(asyncio.TimerHandle):
    """A timer of ``asyncio.sleep`` or ``asyncio.timeout``, which is a durable wait here."""

    __slots__ = ("op_id",)
    op_id: str | None


class OrdinalFuture(asyncio.Future[Any]):
    """A future that hashes by its ordinal."""

    ordinal: int
    #: The loop's stamp (``next_stamp``) of the moment at which it was resolved, None before that.
    settled: int | None = None

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        # Before super().__init__, which may hash it.
        set_own(self, "ordinal", next(cast(OrdinalLoop, loop).ordinals))
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.ordinal


class OpFuture(AwaitOnly, OrdinalFuture):
    """The outcome of an operation.  Cancelling the future gives the operation up."""

    op_id: str | None = None

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Resolve the future with the outcome from the log."""
        if self.done():
            return
        set_own(self, "settled", cast(OrdinalLoop, self.get_loop()).next_stamp())
        if error is None:
            self.set_result(value)
        else:
            self.set_exception(error)
            # So asyncio does not log "exception was never retrieved": it is in the run's log.
            OrdinalFuture.exception(self)

    def cancel(self, msg: Any | None = None) -> bool:
        cancelled = super().cancel(msg=msg)
        if cancelled and self.op_id is not None:
            cast(OrdinalLoop, self.get_loop()).withdraw(self.op_id)
        return cancelled


class OrdinalTask(asyncio.Task[Any]):
    """A task that is named by its path, and hashes by its ordinal."""

    ordinal: int
    path: str
    context: contextvars.Context
    settled: int | None = None

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        loop: asyncio.AbstractEventLoop,
        path: str,
        context: contextvars.Context | None,
    ) -> None:
        own = contextvars.copy_context() if context is None else context  # get_context() is 3.12+
        set_own(self, "ordinal", next(cast(OrdinalLoop, loop).ordinals))
        set_own(self, "path", path)
        set_own(self, "context", own)
        super().__init__(coro, loop=loop, name=path, context=own)
        self._log_destroy_pending = False
        # asyncio keeps all tasks of the process in one set.  Tasks of different runs have the same
        # hashes, and those of suspended workflows stay in it: the set would become slow.
        asyncio._unregister_task(self)

    def __hash__(self) -> int:
        return self.ordinal


class CallTask(AwaitOnly, OrdinalTask):
    """The task of a call that is no operation of its own: ``race``, ``map``."""
