"""
The part of a workflow's loop that knows no operations: callbacks, tasks and generators, in an order that repeats.

A suspended workflow sees nothing.  A task that waits stays suspended until its event comes.  To park the workflow, the
loop closes its coroutines, the newest first, and durable calls raise ``Parked`` meanwhile.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import itertools
import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, NoReturn

from ..events import ROOT
from ..sandbox import collector, ends_process, log_records, waiting_line
from . import asyncio_patches
from .bare_loop import BareLoop
from .commands import Outcome
from .futures import OrdinalFuture, OrdinalTask, Parked
from .operations import Operations
from .parking import close, close_awaited, close_generator
from .unawaited import set_own

log = log_records.get("durable")

MICROS_PER_SECOND = 1_000_000

#: How many durable calls raise ``Parked`` while a coroutine is closed.  After that they return a future
#: that never resolves, so that a loop which catches everything stops.
MAX_REFUSALS = 8


class TaskLoop(BareLoop):
    """
    Runs the tasks of one workflow.

    Times are integers, microseconds since 1970; ``time()`` alone is in seconds since the run's start.

    Attributes:
        operations: What the workflow has asked for, and what the log records of it.  The loop stops at its fault.
        main: The task of the workflow's function.
        ordinals: What futures and tasks hash by, counted up.
        now: The time of the last event applied.
        muted: The events that are applied now were applied before, in an earlier turn.
        closing: The workflow is parked, is being parked, or has continued as new: it can ask for nothing more.
        seq: The ``seq`` of the event that is applied now.
        continued: How the run ends, once the workflow has continued as new.
        unclosable: Where a coroutine waits that could not be closed.
    """

    def __init__(self, run_id: str) -> None:
        asyncio_patches.install()
        self.operations = Operations(run_id)
        self.main: OrdinalTask | None = None
        self.started_at = self.now = 0
        self.ordinals: Iterator[int] = itertools.count(1)
        self._stamps, self._counts = itertools.count(1), collections.Counter[str]()
        self._ready: collections.deque[asyncio.Handle] = collections.deque()
        self._tasks: dict[int, OrdinalTask] = {}  # strong references in order; asyncio's are weak
        # A WeakSet that keeps the order in which the generators began.
        self._gens: weakref.WeakKeyDictionary[AsyncGenerator[Any, Any], None] = weakref.WeakKeyDictionary()
        self.unclosable: str | None = None
        self.closing = False
        self._parked = False
        self.seq = 0
        self.continued: Outcome | None = None
        self.muted = False
        self._refused = 0

    # Names and numbers

    @property
    def replaying(self) -> bool:
        """Whether the code that runs now has run before, in an earlier turn.  Its log lines are dropped."""
        return self.muted or self.closing

    def path(self) -> str:
        """The path of the running task; ``cb`` in a callback outside any task."""
        task = asyncio.current_task(self)
        return task.path if isinstance(task, OrdinalTask) else "cb"

    def next_name(self, mark: str) -> str:
        """The next name under the running task: ``r.1`` for a task, ``r#1`` for an operation."""
        key = self.path() + mark
        self._counts[key] += 1
        return f"{key}{self._counts[key]}"

    def next_stamp(self) -> int:
        """A number that grows with each future that is resolved and each payload received; races compare it."""
        return next(self._stamps)

    # Running

    def start(self, coro: Coroutine[Any, Any, Any], at: int) -> None:
        """Run *coro* as the main task, until it waits."""
        self.started_at = self.now = at

        def create_main() -> None:
            # An empty context, so that no flask.g, tracing span or session of the worker leaks in.
            self.main = self._create_task(coro, ROOT, contextvars.Context())

        self.run(create_main)

    def run(self, function: Callable[..., object], *args: Any) -> None:
        """Call *function* in the loop, then run callbacks until none is ready.  Check the fault afterwards."""
        outer, hooks = asyncio._get_running_loop(), sys.get_asyncgen_hooks()
        # The garbage collector would run finalizers at moments that no replay can repeat.
        collector.pause()
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=self._gens.setdefault, finalizer=self._generator_dropped)
        try:
            function(*args)
            while self._ready and self.operations.fault is None and self.continued is None:
                if self.main is not None and self.main.done():
                    # As in run_until_complete, callbacks that are ready when the main task ends still run, once.
                    for _ in range(len(self._ready)):
                        if self.operations.fault is None:
                            self._run_one()
                    self._ready.clear()
                    break
                self._run_one()
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(outer)
            collector.resume()

    def _run_one(self) -> None:
        handle = self._ready.popleft()
        if handle.cancelled():  # a cancelled handle has no callback any more
            return
        try:
            handle._run()
        except (SystemExit, KeyboardInterrupt) as error:
            # asyncio stores these in the task like any error, and also raises them out of the loop.
            if ends_process(error):
                raise
            if not isinstance(getattr(handle._callback, "__self__", None), asyncio.Task):  # type: ignore[attr-defined]
                self.call_exception_handler({"message": f"Exception in callback {handle!r}", "exception": error})

    def _generator_dropped(self, gen: AsyncGenerator[Any, Any]) -> None:
        # The workflow left the generator by `break`.  Close it in a task, since its `finally` may await steps.
        if not self.closing and asyncio._get_running_loop() is self:
            self.create_task(gen.aclose())

    # Parking

    def park(self) -> None:
        """Close every coroutine, the newest first.  ``finally`` blocks run, ``except Exception`` blocks do not."""
        if self._parked:
            return
        self._parked = self.closing = True
        # From here on, the loop runs what closes the workflow.
        self.continued = None

        def close_all() -> None:
            # After a fault, callbacks are left.  No new ones are added while the loop closes.
            self._ready.clear()
            for gen in reversed(list(self._gens)):
                self._refused = 0
                if not close_awaited(gen):
                    self.unclosable = f"an asynchronous generator at {waiting_line(gen)}"
            for task in reversed(list(self._tasks.values())):
                self._refused = 0
                if not close(task):
                    self.unclosable = f"task {task.path} at {waiting_line(task.get_coro())}"
            for gen in list(self._gens):
                close_generator(gen)

        self.run(close_all)
        self._tasks.clear()

    def _refuse_while_closing(self) -> bool:
        """Raise Parked while the workflow is closed; True after too many calls, when raising did not end it."""
        if not self.closing:
            return False
        self._refused += 1
        if self._refused <= MAX_REFUSALS:
            raise Parked
        return True

    def continue_as_new(self, outcome: Outcome) -> NoReturn:
        """End the workflow here, whichever task calls this: from now on it can ask for nothing, and nothing runs."""
        # A workflow that has returned has its outcome.
        if self.main is not None and not self.main.done():
            self.continued, self.closing = outcome, True
        raise Parked

    # The methods of asyncio's loop

    def time(self) -> float:
        return (self.now - self.started_at) / MICROS_PER_SECOND

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.replaying:
            message, error = context.get("message", "unhandled error"), context.get("exception")
            log.error("in the workflow of run %s: %s", self.operations.run_id, message, exc_info=error)

    def create_future(self) -> asyncio.Future[Any]:
        self._refuse_while_closing()  # ends `finally: await …` and TaskGroup.__aexit__
        return OrdinalFuture(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **_eager_and_later_ones: Any,
    ) -> asyncio.Future[Any]:
        if self.closing:
            coro.close()
            self._refuse_while_closing()
            return OrdinalFuture(loop=self)
        task = self._create_task(coro, self.next_name("."), context)
        if name is not None:
            task.set_name(name)
        return task

    def _create_task(
        self, coro: Coroutine[Any, Any, Any], path: str, context: contextvars.Context | None
    ) -> OrdinalTask:
        task = OrdinalTask(coro, loop=self, path=path, context=context)
        self._add_task(task)
        return task

    def _add_task(self, task: OrdinalTask) -> None:
        self._tasks[task.ordinal] = task
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        assert isinstance(task, OrdinalTask)
        set_own(task, "settled", self.next_stamp())
        self._tasks.pop(task.ordinal, None)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.closing:
            self._ready.append(handle)
        return handle
