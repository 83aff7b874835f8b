"""
The deterministic asyncio event loop on which a workflow runs against its log.

Rule 1: the log is the only scheduler.  ``replay`` drives the loop by hand: it
applies one event (it resolves one future, or makes one timer ready), the loop
runs until nothing is ready, then ``replay`` applies the next event.

Rule 2: no I/O, no clock, no ambient context.  ``time()`` is the time of the
last event.  Methods of asyncio's loop that do I/O raise (``bare_loop.py``).

Rule 3: a suspended workflow sees nothing.  A task that waits stays suspended
until its event comes.  To park the workflow, the loop closes its coroutines,
the newest first, and durable calls raise ``Parked`` meanwhile.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import gc
import itertools
import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any

from ..events import ROOT
from ..sandbox import ends_process, log_records, waiting_line
from . import asyncio_patches
from .bare_loop import BareLoop
from .commands import Command, CreateWait
from .futures import CallTask, OpFuture, OrdinalFuture, OrdinalTask, Parked, Timer
from .operations import Create, Created, Operations, OperationSpec
from .parking import close, close_awaited, close_generator
from .unawaited import Unawaited

log = log_records.get("durable")

MICROS_PER_SECOND = 1_000_000

#: How many durable calls raise ``Parked`` while a coroutine is closed.  After that they return a future
#: that never resolves, so that a loop which catches everything stops.
MAX_REFUSALS = 8

#: How many calls a warning of calls that were never awaited shows.
MAX_LINES = 10


class DurableLoop(BareLoop):
    """
    Runs one workflow.

    Times are integers, microseconds since 1970; ``time()`` alone is in seconds since the run's start.

    Attributes:
        operations: What the workflow has asked for, and what the log records of it.
        pending: The future or timer of each operation that the workflow waits for, by op id.
        context: The run's ``RunContext``, which sets it.
        main: The task of the workflow's function.
        unawaited: The calls that the workflow has not awaited yet.
        now: The time of the last event applied.
        muted: The events that are applied now were applied before, in an earlier turn.
        closing: The workflow is parked, or is being parked.
        passthrough_modules: The modules whose calls the guards let pass.
        unclosable: Where a coroutine waits that could not be closed.
    """

    is_durable = True

    def __init__(self, run_id: str) -> None:
        asyncio_patches.install()
        self.operations = Operations(run_id)
        self.pending: dict[str, Timer | OpFuture] = {}
        self.context: Any = None
        self.main: OrdinalTask | None = None
        self.unawaited = Unawaited()
        self.started_at = self.now = 0
        self.ordinals: Iterator[int] = itertools.count(1)
        self._stamps, self._counts = itertools.count(1), collections.Counter[str]()
        self._ready: collections.deque[asyncio.Handle] = collections.deque()
        self._tasks: dict[int, OrdinalTask] = {}  # strong references in order; asyncio's are weak
        # A WeakSet that keeps the order in which the generators began.
        self._gens: weakref.WeakKeyDictionary[AsyncGenerator[Any, Any], None] = weakref.WeakKeyDictionary()
        self.passthrough_modules: tuple[str, ...] = ()
        self.unclosable: str | None = None
        self.closing = False
        self.muted = False
        self._refused = 0

    # Operations

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

    def issue(self, asked: OperationSpec, build: Callable[[str], Create]) -> Create | Created | None:
        """
        Add an operation under the next op id of the running task.

        Args:
            build: Makes the command from the op id.

        Returns:
            The event that records the operation, or else the new command.  None while the workflow is
            closed, after too many calls: the caller gets a future that never resolves.

        Raises:
            Parked: The workflow is being closed, or does not match its log.
        """
        if self._refuse_while_closing():
            return None
        issued = self.operations.issue(self.next_name("#"), asked, build)
        if issued is None:
            raise Parked
        return issued

    def add_command(self, key: str, command: Command) -> None:
        """Add a command without an outcome, except while the workflow is closed."""
        if not self.closing:
            self.operations.commands[key] = command

    def schedule(self, asked: OperationSpec, build: Callable[[str], Create]) -> OpFuture:
        """Issue an operation, and return the future of its outcome.  The author's line is three frames up."""
        issued = self.issue(asked, build)
        future = OpFuture(loop=self)
        if issued is not None:
            future.op_id = issued.op_id
            self.pending[issued.op_id] = future
            self.unawaited.add(future, issued.op_id.partition("#")[0], asked.name or "sleep", frames=3)
        return future

    def ended_call(self, name: str) -> OpFuture:
        """The future of a call that is no operation and has nothing to wait for: it ends at once, with None."""
        self._refuse_while_closing()
        future = OpFuture(loop=self)

        def end() -> None:
            if not future.done():
                future.set_result(None)

        self.call_soon(end)
        self.unawaited.add(future, self.path(), name, frames=3)
        return future

    def create_call(
        self, coro: Coroutine[Any, Any, Any], name: str, on_done: Callable[[object], None] | None = None
    ) -> asyncio.Future[Any]:
        """
        Run *coro* as the task of a call of the function *name*.  The author's line is three frames up.

        Args:
            on_done: Called when the task has ended.
        """
        if self.closing:
            return self.create_task(coro)
        path = self.path()
        task = CallTask(coro, loop=self, path=self.next_name("."), context=None)
        self._add_task(task)
        if on_done is not None:
            task.add_done_callback(on_done)
        self.unawaited.add(task, path, name, frames=3)
        return task

    def wait_spec(self, name: str, due_at: int) -> tuple[OperationSpec, Callable[[str], Create]]:
        """The arguments of ``issue`` for a wait.  The digest is the name and the due time, so a diff shows both."""
        digest = f"{name}:{due_at - self.started_at}"
        return OperationSpec("wait", "", digest), lambda op_id: CreateWait(op_id=op_id, digest=digest, due_at=due_at)

    def withdraw(self, op_id: str) -> None:
        """Give up an operation whose future was cancelled."""
        # Closing a coroutine cancels futures too, in its `finally` blocks; those operations go on.
        if not self.closing and self.pending.pop(op_id, None) is not None:
            self.operations.withdraw(op_id)

    def resolve(self, op_id: str, at: int, value: Any = None, error: BaseException | None = None) -> None:
        """Apply the outcome of an operation, if the workflow still waits for it."""
        self.operations.end(op_id)
        waiting = self.pending.pop(op_id, None)
        if waiting is None:
            return
        self.now = max(self.now, at)
        if isinstance(waiting, Timer):
            self.run(self._ready.append, waiting)
        else:
            self.run(waiting.settle, value, error)

    def diverge(self, op_id: str, recorded: str, asked: str, where: str | None) -> None:
        """Note that the workflow does not match its log."""
        if not self.closing:
            self.operations.diverge(op_id, recorded, asked, where)

    def warn_unawaited(self) -> None:
        """Log the calls that the workflow, which has completed, never awaited."""
        if self.replaying or not self.unawaited:
            return
        lines = self.unawaited.lines({task.path for task in self._tasks.values() if task is not self.main})
        if lines:
            log.warning(
                "Run %s has completed without awaiting %s: their results and errors are lost.  Write `await` before"
                " each call, or await it later.",
                self.operations.run_id,
                ", ".join(lines[:MAX_LINES]) + (f" and {len(lines) - MAX_LINES} more" if lines[MAX_LINES:] else ""),
            )

    def waiting_line(self, op_id: str) -> str | None:
        """The line where the task of *op_id* waits, or else the main task."""
        path = op_id.partition("#")[0]
        found = next((task for task in self._tasks.values() if task.path == path), self.main)
        return None if found is None else waiting_line(found.get_coro())

    def _refuse_while_closing(self) -> bool:
        """Raise Parked while the workflow is closed; True after too many calls, when raising did not end it."""
        if not self.closing:
            return False
        self._refused += 1
        if self._refused <= MAX_REFUSALS:
            raise Parked
        return True

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
        outer, hooks, collecting = asyncio._get_running_loop(), sys.get_asyncgen_hooks(), gc.isenabled()
        # The garbage collector would run finalizers at moments that no replay can repeat.
        gc.disable()
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=self._gens.setdefault, finalizer=self._generator_dropped)
        try:
            function(*args)
            while self._ready and self.operations.fault is None:
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
            if collecting:
                gc.enable()

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
        if self.closing:
            return
        self.closing = True

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
        for held in (self._tasks, self.pending, self.operations.recorded):
            held.clear()

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
        task.settled = self.next_stamp()
        if self.unawaited and (task.cancelled() or task._exception is not None):
            self.unawaited.forget_task(task.path)
        self._tasks.pop(task.ordinal, None)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.closing:
            self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        due_at = self.started_at + _micros(when)
        if due_at <= self.now:
            return self.call_soon(callback, *args, context=context)
        # Tell asyncio.sleep from a timeout: wake_up() ends sleeps and leaves timeouts.
        name = "sleep" if callback is asyncio.futures._set_result_unless_cancelled else "timer"  # type: ignore[attr-defined]
        issued = self.issue(*self.wait_spec(name, due_at))
        handle = Timer(when, callback, args, self, context)
        handle.op_id = None if issued is None else issued.op_id
        if issued is not None:
            self.pending[issued.op_id] = handle
        return handle

    def _timer_handle_cancelled(self, handle: Timer) -> None:
        if handle.op_id is not None:
            self.withdraw(handle.op_id)  # asyncio.sleep cancels its timer even after it has fired


def _micros(seconds: float) -> int:
    try:
        return round(seconds * MICROS_PER_SECOND)
    except (ValueError, OverflowError):
        raise ValueError(
            f"A delay of {seconds!r} seconds has no end.  To wait until cancelled, await asyncio.Event().wait()."
        ) from None
