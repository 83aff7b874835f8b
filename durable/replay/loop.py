"""
The deterministic asyncio event loop on which a workflow runs against its log.

Rule 1: the log is the only scheduler.  The loop is driven by hand: ``replay``
applies one event (one future resolved, or one timer readied), the loop runs
until nothing is ready, then comes the next event.

Rule 2: no I/O, no clock, no ambient context.  ``time()`` is the time of the
last event.  What is not implemented here raises.

Rule 3: a suspended workflow sees nothing.  Whoever waits simply stays
suspended until its event comes; to put the workflow away, its coroutines are
closed, newest first, and no durable call is possible meanwhile (``Parked``).

Theory of operation
===================
Every call of a step, sleep, hook or child is an operation.  Its name, the op
id, is the path of the calling task and an ordinal: ``r#3`` is the third of
the main task ``r``, ``r.2#1`` the first of the second task that ``r`` made.
So the order in which parallel tasks run is no part of any name.  Issuing one
compares it with what the log recorded under that name; without a record it
becomes a command.
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
from typing import Any, NoReturn

from ..errors import NonDeterministicCall
from ..events import ROOT
from ..sandbox import calling_line, ends_process, log_records, waiting_line
from . import asyncio_patches
from .commands import Command, CreateWait
from .futures import OpFuture, OrdinalFuture, OrdinalTask, Parked, Timer
from .operations import Create, Created, Identity, Ledger
from .parking import close, close_awaited, close_generator

#: Methods of ``asyncio.AbstractEventLoop``.
REFUSED = [
    "add_reader",
    "add_writer",
    "add_signal_handler",
    "call_soon_threadsafe",
    "close",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "getaddrinfo",
    "getnameinfo",
    "remove_reader",
    "remove_signal_handler",
    "remove_writer",
    "run_forever",
    "run_in_executor",
    "run_until_complete",
    "sendfile",
    "set_debug",
    "set_default_executor",
    "set_task_factory",
    "shutdown_asyncgens",
    "shutdown_default_executor",
    "sock_accept",
    "sock_connect",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendfile",
    "sock_sendto",
    "start_tls",
    "stop",
    "subprocess_exec",
    "subprocess_shell",
]


def refusal(name: str) -> Callable[..., NoReturn]:
    """A method that refuses to be called."""

    def refuse(self: object, *args: Any, **kwargs: Any) -> NoReturn:
        raise NonDeterministicCall(f"loop.{name}", where=calling_line())

    return refuse


log = log_records.get("durable")

MICRO = 1_000_000

#: Durable calls that a closing workflow is refused before it is left to wait for ever instead.
REFUSALS = 8


class DurableLoop(asyncio.AbstractEventLoop):
    """
    Runs one workflow.  Times inside are integers, microseconds since 1970; ``time()`` is seconds since the start.

    Attributes:
        ledger: What was asked for, and what the log says of it.
        pending: The future or timer of each operation whose outcome is still awaited.
        now: The time of the last event applied.
        muted: What runs now has run before, in an earlier turn.
        passthrough_modules: The modules whose calls the guards let pass.
        unclosable: Where a coroutine waits that swallows even its own end.
    """

    is_durable = True

    def __init__(self, run_id: str) -> None:
        asyncio_patches.install()
        self.ledger = Ledger(run_id)
        self.pending: dict[str, Timer | OpFuture] = {}
        self.context: Any = None
        self.main: OrdinalTask | None = None
        self.started_at = self.now = 0
        self.ordinals: Iterator[int] = itertools.count(1)
        self._stamps, self._counts = itertools.count(1), collections.Counter[str]()
        self._ready: collections.deque[asyncio.Handle] = collections.deque()
        self._tasks: dict[int, OrdinalTask] = {}  # asyncio holds tasks weakly: ours is strong and ordered
        # Like a WeakSet, but in the order in which they began.
        self._gens: weakref.WeakKeyDictionary[AsyncGenerator[Any, Any], None] = weakref.WeakKeyDictionary()
        self.passthrough_modules: tuple[str, ...] = ()
        self.unclosable: str | None = None
        self.closing = False
        self.muted = False
        self._refused = 0

    # Operations

    @property
    def replaying(self) -> bool:
        """What runs now has run before, in an earlier turn: its log lines are not wanted again."""
        return self.muted or self.closing

    def path(self) -> str:
        """The path of the running task; ``cb`` in a bare callback."""
        task = asyncio.current_task(self)
        return task.path if isinstance(task, OrdinalTask) else "cb"

    def numbered(self, mark: str) -> str:
        """The next name under the running task: ``r.1`` for a task, ``r#1`` for an operation."""
        key = self.path() + mark
        self._counts[key] += 1
        return f"{key}{self._counts[key]}"

    def stamp(self) -> int:
        """The next in the count of moments at which something was resolved or received."""
        return next(self._stamps)

    def issue(self, asked: Identity, build: Callable[[str], Create]) -> Create | Created | None:
        """
        Ask for an operation: the event that records it, or else the command, which *build* makes for its op id.

        Returns None where nothing may be asked for any more and nobody should wait for an answer.
        """
        if self._refuse():
            return None
        entered = self.ledger.ask(self.numbered("#"), asked, build)
        if entered is None:
            raise Parked
        return entered

    def ask(self, key: str, command: Command) -> None:
        """Ask for what has no ordinal and no outcome, unless the workflow is being put away."""
        if not self.closing:
            self.ledger.commands[key] = command

    def op(self, asked: Identity, build: Callable[[str], Create]) -> OpFuture:
        """Ask for an operation with an outcome."""
        entered = self.issue(asked, build)
        future = OpFuture(loop=self)
        if entered is not None:
            future.op_id = entered.op_id
            self.pending[entered.op_id] = future
        return future

    def wait(self, name: str, due_at: int) -> tuple[Identity, Callable[[str], Create]]:
        """What asks for a wait; its digest is its name and its moment, so a diff can show both."""
        digest = f"{name}:{due_at - self.started_at}"
        return Identity("wait", "", digest), lambda op_id: CreateWait(op_id=op_id, digest=digest, due_at=due_at)

    def withdraw(self, op_id: str) -> None:
        """The workflow no longer wants the outcome.  Not so while closing, when `finally` cancels things."""
        if not self.closing and self.pending.pop(op_id, None) is not None:
            self.ledger.withdraw(op_id)

    def resolve(self, op_id: str, at: int, value: Any = None, error: BaseException | None = None) -> None:
        """Apply the outcome of an operation, unless nobody waits for it any more."""
        self.ledger.end(op_id)
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
            self.ledger.diverge(op_id, recorded, asked, where)

    def waiting_line(self, op_id: str) -> str | None:
        """Where the task waits that would have asked for *op_id*, else where the main one does."""
        path = op_id.partition("#")[0]
        found = next((task for task in self._tasks.values() if task.path == path), self.main)
        return None if found is None else waiting_line(found.get_coro())

    def _refuse(self) -> bool:
        """True where a closing workflow that swallows Parked is left to wait."""
        if not self.closing:
            return False
        self._refused += 1
        if self._refused <= REFUSALS:
            raise Parked
        return True

    # Running

    def start(self, coro: Coroutine[Any, Any, Any], at: int) -> None:
        """Run *coro* as the main task, until it waits."""
        self.started_at = self.now = at
        # An empty context: no flask.g, no span, no session leaks in.
        self.run(self._start, coro)

    def _start(self, coro: Coroutine[Any, Any, Any]) -> None:
        self.main = self._task(coro, ROOT, contextvars.Context())

    def run(self, function: Callable[..., object], *args: Any) -> None:
        """Call *function* as from inside, then run whatever is ready.  Look at ``fault`` afterwards."""
        self._inside(self._run, function, *args)

    def _run(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)
        while self._ready and self.ledger.fault is None:
            if self.main is not None and self.main.done():
                self._last_round()
                break
            self._run_one()

    def _run_one(self) -> None:
        handle = self._ready.popleft()
        if handle.cancelled():  # it has lost its callback
            return
        try:
            handle._run()
        except (SystemExit, KeyboardInterrupt) as error:
            # asyncio gives these to the task, as any error, and raises them out of the loop besides.
            if ends_process(error):
                raise
            if not isinstance(getattr(handle._callback, "__self__", None), asyncio.Task):  # type: ignore[attr-defined]
                self.call_exception_handler({"message": f"Exception in callback {handle!r}", "exception": error})

    def _last_round(self) -> None:
        """What is ready when the main task ends still runs, as in ``run_until_complete``; no more."""
        for _ in range(len(self._ready)):
            if self.ledger.fault is None:
                self._run_one()
        self._ready.clear()

    def _inside(self, function: Callable[..., object], *args: Any) -> None:
        """Call *function* with this as the running loop."""
        outer, hooks, collecting = asyncio._get_running_loop(), sys.get_asyncgen_hooks(), gc.isenabled()
        # The collector would run finalizers of ours at moments that no replay can repeat.
        gc.disable()
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(self._begin, self._finalize)
        try:
            function(*args)
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(outer)
            if collecting:
                gc.enable()

    def _begin(self, gen: AsyncGenerator[Any, Any]) -> None:
        self._gens[gen] = None

    def _finalize(self, gen: AsyncGenerator[Any, Any]) -> None:
        # An async generator that was left by `break`: its `finally` may await steps.
        if not self.closing and asyncio._get_running_loop() is self:
            self.create_task(gen.aclose())

    # Parking

    def park(self) -> None:
        """Close every coroutine, newest first.  Their `finally` runs, their `except Exception` does not."""
        if self.closing:
            return
        self.closing = True
        self._inside(self._close)
        for held in (self._ready, self._tasks, self.pending, self.ledger.recorded):
            held.clear()

    def _close(self) -> None:
        for gen in reversed(list(self._gens)):
            self._refused = 0
            if not close_awaited(gen):
                self.unclosable = f"an asynchronous generator at {waiting_line(gen)}"
        for task in reversed(list(self._tasks.values())):
            self._refused = 0
            if not close(task):
                # It would go on for ever.
                self.unclosable = f"task {task.path} at {waiting_line(task.get_coro())}"
        for gen in list(self._gens):
            close_generator(gen)

    # What asyncio asks of a loop

    def time(self) -> float:
        return (self.now - self.started_at) / MICRO

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def set_exception_handler(self, handler: object) -> None:
        return None

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.replaying:
            message, error = context.get("message", "unhandled error"), context.get("exception")
            log.error("in the workflow of run %s: %s", self.ledger.run_id, message, exc_info=error)

    def create_future(self) -> asyncio.Future[Any]:
        self._refuse()  # cuts `finally: await …` and TaskGroup.__aexit__ short
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
            self._refuse()
            return OrdinalFuture(loop=self)
        task = self._task(coro, self.numbered("."), context)
        if name is not None:
            task.set_name(name)
        return task

    def _task(self, coro: Coroutine[Any, Any, Any], path: str, context: contextvars.Context | None) -> OrdinalTask:
        task = OrdinalTask(coro, loop=self, path=path, context=context)
        self._tasks[task.ordinal] = task
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        assert isinstance(task, OrdinalTask)
        task.settled = self.stamp()
        self._tasks.pop(task.ordinal, None)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.closing:
            self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        due_at = self.started_at + _micros(when)
        if due_at <= self.now:
            return self.call_soon(callback, *args, context=context)
        # asyncio.sleep is told from a timeout, so that wake_up() can end the one and leave the other.
        name = "sleep" if callback is asyncio.futures._set_result_unless_cancelled else "timer"  # type: ignore[attr-defined]
        entered = self.issue(*self.wait(name, due_at))
        handle = Timer(when, callback, args, self, context)
        handle.op_id = None if entered is None else entered.op_id
        if entered is not None:
            self.pending[entered.op_id] = handle
        return handle

    def _timer_handle_cancelled(self, handle: Timer) -> None:
        if handle.op_id is not None:
            self.withdraw(handle.op_id)  # asyncio.sleep cancels its timer even after it fired


def _micros(seconds: float) -> int:
    try:
        return round(seconds * MICRO)
    except (ValueError, OverflowError):
        raise ValueError(
            f"A delay of {seconds!r} seconds has no end.  To wait until cancelled, await asyncio.Event().wait()."
        ) from None


for _name in REFUSED:
    setattr(DurableLoop, _name, refusal(_name))
