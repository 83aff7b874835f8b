"""
The deterministic asyncio event loop on which a workflow runs against its log.

Rule 1: the log is the only scheduler.  ``replay`` drives the loop by hand: it
applies one event (it resolves one future, or makes one timer ready), the loop
runs until nothing is ready, then ``replay`` applies the next event.

Rule 2: no I/O, no clock, no ambient context.  ``time()`` is the time of the
last event.  Methods of asyncio's loop that do I/O raise (``bare_loop.py``).

Rule 3: a suspended workflow sees nothing (``task_loop.py``, which has all of
the loop but what a workflow asks of its log).
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

from ..duration import LATEST
from ..sandbox import log_records, waiting_line
from .commands import Command, CreateWait
from .futures import CallTask, OpFuture, OrdinalTask, Parked, Timer
from .operations import Create, Created, OperationSpec
from .task_loop import MICROS_PER_SECOND, TaskLoop
from .unawaited import Unawaited, set_own

log = log_records.get("durable")

#: How many calls a warning of calls that were never awaited shows.
MAX_LINES = 10


class DurableLoop(TaskLoop):
    """
    Runs one workflow, and makes its calls and timers operations of its log.

    Attributes:
        pending: The future or timer of each operation that the workflow waits for, by op id.
        context: The run's ``RunContext``, which sets it.
        unawaited: The calls that the workflow has not awaited yet.
        passthrough_modules: The modules whose calls the guards let pass.
    """

    is_durable = True

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.pending: dict[str, Timer | OpFuture] = {}
        self.context: Any = None
        self.unawaited = Unawaited()
        self.passthrough_modules: tuple[str, ...] = ()

    # Operations

    def issue(
        self, asked: OperationSpec, build: Callable[[str], Create], op_id: str | None = None
    ) -> Create | Created | None:
        """
        Add an operation under the next op id of the running task.

        Args:
            build: Makes the command from the op id.
            op_id: Another op id, which the operation has had from the beginning.

        Returns:
            The event that records the operation, or else the new command.  None while the workflow is
            closed, after too many calls: the caller gets a future that never resolves.

        Raises:
            Parked: The workflow is being closed, or does not match its log.
        """
        if self._refuse_while_closing():
            return None
        issued = self.operations.issue(op_id or self.next_name("#"), asked, build)
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
            set_own(future, "op_id", issued.op_id)
            self.pending[issued.op_id] = future
            self.unawaited.add(future, issued.op_id.partition("#")[0], asked.name or "sleep", frames=3)
        return future

    def ended_call(self, name: str) -> OpFuture:
        """The future of a call that is no operation and has nothing to wait for: it ends at once, with None."""
        self._refuse_while_closing()
        future = OpFuture(loop=self)
        self.unawaited.add(future, self.path(), name, frames=3)

        def finish() -> None:
            if not future.done():
                future.set_result(None)  # without a stamp: a race takes it as ended when the race begins

        self.call_soon(finish)
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

    # What the tasks' loop does, with what is kept here

    def park(self) -> None:
        super().park()
        self.pending.clear()
        self.operations.recorded.clear()

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        super()._task_done(task)
        assert isinstance(task, OrdinalTask)
        if self.unawaited and (task.cancelled() or task._exception is not None):
            self.unawaited.forget_task(task.path)

    # Timers: the methods of asyncio's loop that wait

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        due_at = self.started_at + _micros(when)
        if due_at > LATEST:
            raise ValueError(f"A delay of {when - self.time():g} seconds ends after the year 9999.")
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
