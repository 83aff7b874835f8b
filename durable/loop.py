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
import contextlib
import contextvars
import ctypes
import gc
import itertools
import logging
import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, NoReturn, TypeVar

from . import shims
from .commands import Command, CreateWait, Withdraw
from .errors import NonDeterminismError, NonDeterministicCall
from .events import ROOT
from .operations import Create, Created, Identity, calling_line, describe, identity, waiting_line

T = TypeVar("T")

log = logging.getLogger("durable")

MICRO = 1_000_000

#: Durable calls that a closing workflow is refused before it is left to wait for ever instead.
REFUSALS = 8
#: How often a coroutine is closed that awaits something whenever it is closed.
CLOSINGS = 16


class Parked(BaseException):
    """Raised by durable calls while a workflow is being put away, or has diverged from its log."""


class Timer(asyncio.TimerHandle):
    """A timer of asyncio's own (``sleep``, ``timeout``), which is a durable wait."""

    __slots__ = ("op_id",)
    op_id: str | None


class OrdinalFuture(asyncio.Future[Any]):
    """A future that hashes by its ordinal, so that sets of them iterate alike everywhere."""

    def __init__(self, *, loop: DurableLoop) -> None:
        self.ordinal = next(loop.ordinals)  # before super(), which may hash us
        #: When it was resolved, in the loop's count of such moments; None: not yet, or not known.
        self.settled: int | None = None
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.ordinal


class OpFuture(OrdinalFuture):
    """The outcome of an operation.  Cancelling it gives the operation up."""

    op_id: str | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        cancelled = super().cancel(msg=msg)
        if cancelled and self.op_id is not None:
            self.get_loop().withdraw(self.op_id)  # type: ignore[attr-defined]
        return cancelled


class OrdinalTask(asyncio.Task[Any]):
    """A task with a path for a name, that hashes by its ordinal."""

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        loop: DurableLoop,
        path: str,
        context: contextvars.Context | None,
    ) -> None:
        self.ordinal, self.path = next(loop.ordinals), path
        self.settled: int | None = None
        self.context = contextvars.copy_context() if context is None else context  # get_context() is 3.12+
        super().__init__(coro, loop=loop, name=path, context=self.context)
        self._log_destroy_pending = False
        # asyncio's registry of all tasks is one set per process.  Ours hash alike from run to run,
        # and those of parked workflows stay: it would become slow, and no other loop's business.
        asyncio._unregister_task(self)

    def __hash__(self) -> int:
        return self.ordinal


class DurableLoop(asyncio.AbstractEventLoop):
    """
    Runs one workflow.  Times inside are integers, microseconds since 1970; ``time()`` is seconds since the start.

    Attributes:
        now: The time of the last event applied.
        recorded: Events that create an operation which the workflow has not asked for yet, by op id.
        issued: What the workflow has asked for.
        pending: The future or timer of each operation whose outcome is still awaited.
        commands: What the log lacks, in the order of issue.
        ended: Operations whose outcome is known, or no longer wanted.
        given_up: Operations that the log records as cancelled or closed.
        fault: How the workflow differs from its log.
        unclosable: Where a coroutine waits that swallows even its own end.
    """

    is_durable = True

    def __init__(self, run_id: str) -> None:
        shims.install()
        self.run_id = run_id
        self.context: Any = None
        self.main: OrdinalTask | None = None
        self.started_at = self.now = 0
        self.ordinals, self._counts = itertools.count(1), collections.Counter[str]()
        self._settled = itertools.count(1)
        self._ready: collections.deque[asyncio.Handle] = collections.deque()
        self._tasks: dict[int, OrdinalTask] = {}  # asyncio holds tasks weakly: ours is strong and ordered
        self._gens: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        self.recorded: dict[str, Created] = {}
        self.issued: dict[str, Identity] = {}
        self.pending: dict[str, Timer | OpFuture] = {}
        self.commands: dict[str, Command] = {}
        self.ended: set[str] = set()
        self.given_up: set[str] = set()
        self.fault: NonDeterminismError | None = None
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
        return next(self._settled)

    def issue(self, build: Callable[[str], Create]) -> str | None:
        """
        Ask for an operation, which *build* makes for its op id.

        Returns None where nothing may be asked for any more and nobody should wait for an answer.
        """
        if self._refuse():
            return None
        op_id = self.numbered("#")
        command = build(op_id)
        asked = identity(command)
        recorded = self.recorded.pop(op_id, None)
        if recorded is not None and identity(recorded) != asked:
            self.diverge(op_id, describe(recorded), describe(command), calling_line())
            raise Parked
        self.issued[op_id] = asked
        if recorded is None:
            self.commands[op_id] = command
        return op_id

    def ask(self, key: str, command: Command) -> None:
        """Ask for what has no ordinal and no outcome, unless the workflow is being put away."""
        if not self.closing:
            self.commands[key] = command

    def op(self, build: Callable[[str], Create]) -> OpFuture:
        """Ask for an operation with an outcome."""
        op_id = self.issue(build)
        future = OpFuture(loop=self)
        if op_id is not None:
            future.op_id = op_id
            self.pending[op_id] = future
        return future

    def withdraw(self, op_id: str) -> None:
        """The workflow no longer wants the outcome.  Not so while closing, when `finally` cancels things."""
        if self.closing or self.pending.pop(op_id, None) is None:
            return
        self.ended.add(op_id)
        if self.commands.pop(op_id, None) is not None or op_id in self.given_up:
            return
        kind: Any = self.issued[op_id].kind
        self.commands[f"{op_id}/withdraw"] = Withdraw(op_id=op_id, kind=kind)

    def end(self, op_id: str) -> Timer | OpFuture | None:
        """The log knows the outcome: who waits for it, None when nobody does any more."""
        self.ended.add(op_id)
        self.commands.pop(f"{op_id}/withdraw", None)
        return self.pending.pop(op_id, None)

    def diverge(self, op_id: str, recorded: str, asked: str, where: str | None) -> None:
        """Note that the workflow does not match its log.  The first time counts."""
        if self.fault is None and not self.closing:
            self.fault = NonDeterminismError(self.run_id, op_id, recorded, asked, where)

    def waiting_line(self, op_id: str) -> str | None:
        """Where the task waits that would have asked for *op_id*, else where the main one does."""
        path = op_id.partition("#")[0]
        tasks = [task for task in self._tasks.values() if task.path == path]
        return waiting_line((tasks or [self.main])[0].get_coro()) if tasks or self.main else None  # type: ignore[union-attr]

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

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call *function* as from inside, then run whatever is ready.  Look at ``fault`` afterwards."""
        with self._running():
            result = function(*args)
            while self._ready and self.fault is None:
                if self.main is not None and self.main.done():
                    self._last_round()
                    break
                self._run_one()
        return result

    def _run_one(self) -> None:
        handle = self._ready.popleft()
        if not handle.cancelled():  # one that is has lost its callback
            handle._run()

    def _last_round(self) -> None:
        """What is ready when the main task ends still runs, as in ``run_until_complete``; no more."""
        for _ in range(len(self._ready)):
            if self.fault is None:
                self._run_one()
        self._ready.clear()

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        outer, hooks, collecting = asyncio._get_running_loop(), sys.get_asyncgen_hooks(), gc.isenabled()
        # The collector would run finalizers of ours at moments that no replay can repeat.
        gc.disable()
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(self._gens.add, self._finalize)
        try:
            yield
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(outer)
            if collecting:
                gc.enable()

    def _finalize(self, gen: AsyncGenerator[Any, Any]) -> None:
        # An async generator that was left by `break`: its `finally` may await steps.
        if not self.closing and asyncio._get_running_loop() is self:
            self.create_task(gen.aclose())

    def make_ready(self, handle: asyncio.Handle) -> None:
        """A timer's time has come."""
        self._ready.append(handle)

    # Parking

    def park(self) -> None:
        """Close every coroutine, newest first.  Their `finally` runs, their `except Exception` does not."""
        if self.closing:
            return
        self.closing = True
        with self._running():
            for task in reversed(list(self._tasks.values())):
                self._close(task)
            for gen in list(self._gens):
                with contextlib.suppress(BaseException):
                    gen.aclose().send(None)
        for held in (self._ready, self._tasks, self.pending, self.recorded):
            held.clear()

    def _close(self, task: OrdinalTask) -> None:
        coro: Any = task.get_coro()
        self._refused = 0
        for _ in range(CLOSINGS):
            try:
                task.context.run(coro.close)
            except RuntimeError as error:
                if "GeneratorExit" in str(error):
                    continue  # "coroutine ignored GeneratorExit": it awaited; close it again
            except BaseException:
                pass  # Parked, or the author's own: nobody is there to hear it
            return
        # It would go on for ever: then so would the collector, or the exit of Python.  Keep it.
        self.unclosable = f"task {task.path} at {waiting_line(coro)}"
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(coro))

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
            log.error("in the workflow of run %s: %s", self.run_id, message, exc_info=error)

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
        op_id = self.issue(lambda op_id: self.wait_until(op_id, name, due_at))
        handle = Timer(when, callback, args, self, context)
        handle.op_id = op_id
        if op_id is not None:
            self.pending[op_id] = handle
        return handle

    def wait_until(self, op_id: str, name: str, due_at: int) -> CreateWait:
        """The command for a wait; its digest is its name and its moment, so a diff can show both."""
        return CreateWait(op_id=op_id, digest=f"{name}:{due_at - self.started_at}", due_at=due_at)

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


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(self: DurableLoop, *args: Any, **kwargs: Any) -> NoReturn:
        raise NonDeterministicCall(f"loop.{name}")

    return refuse


#: What reaches out of the loop, or would stop it.
_REFUSED = """
    add_reader add_writer add_signal_handler call_soon_threadsafe close connect_accepted_socket
    connect_read_pipe connect_write_pipe create_connection create_datagram_endpoint create_server
    create_unix_connection create_unix_server getaddrinfo getnameinfo remove_reader remove_signal_handler
    remove_writer run_forever run_in_executor run_until_complete sendfile set_debug set_default_executor
    set_task_factory shutdown_asyncgens shutdown_default_executor sock_accept sock_connect sock_recv
    sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendfile sock_sendto start_tls stop
    subprocess_exec subprocess_shell
"""
for _name in _REFUSED.split():
    setattr(DurableLoop, _name, _refusal(_name))
