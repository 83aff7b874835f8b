"""
All code that depends on the internals of Celery and kombu, and not on their documented interfaces.

Each part names what it relies on.  tests/broker/test_celery_internals.py has one test for each part.  When a version of
Celery changes one of them, its test fails.  What only a worker or a sender needs is imported where it is used: the
command and a web process that only read runs do without.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Protocol

from billiard import util as billiard_util
from billiard.process import current_process
from celery import Celery, Task
from celery._state import _task_stack
from celery.backends.base import DisabledBackend
from celery.states import FAILURE, RETRY
from celery.utils.serialization import get_pickled_exception
from celery.utils.threads import get_ident
from kombu.utils.encoding import safe_repr

#: ``tracer(uuid, args, kwargs, request)``: runs a task as for a message, with its signals and log lines.
Tracer = Callable[..., Any]

#: Seconds between two checks of a prefork pool for ended children.
CHILD_CHECK_SECS = 0.2
#: Seconds after which the pool is checked again when the pipe to a child has closed.
CHILD_RECHECK_SECS = (0.005, 0.02, 0.05)


# Tracing.  A worker, and each prefork child, sets ``task.__trace__`` to ``build_tracer(…)`` when it starts, and calls
# ``task.__trace__(uuid, args, kwargs, request)`` for each message.  The request becomes the attributes of
# ``task.request``, keys of ours too.


class RunMessage(Protocol):
    """A function that runs a message of a traced task.  It replaces Celery's tracer, and gets it as an argument."""

    def __call__(self, tracer: Tracer, uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
        """Run the message, and return the tracer's result."""


def traced_task(app: Celery, run_message: RunMessage) -> type[Task]:
    """A base class for tasks of this app: a worker calls *run_message* for each of their messages."""
    base: type[Task] = app.Task

    class TracedTask(base):  # type: ignore[misc]
        abstract = True
        tracer: Tracer | None = None

        @functools.cached_property
        def backend(self) -> DisabledBackend:
            """No results.  The application's backend would be made once for each thread that sends."""
            return DisabledBackend(app=app)

        @property
        def __trace__(self) -> Tracer | None:
            return self.tracer and functools.partial(run_message, self.tracer)

        @__trace__.setter
        def __trace__(self, tracer: Tracer | None) -> None:
            self.tracer = tracer

    return TracedTask


def tracer_of(task: Any, hostname: str | None) -> Tracer:
    """Celery's tracer of a traced task; made here for a task that was defined after the worker started."""
    if task.tracer is None:
        from celery.app import trace

        # Through its module, since Sentry's integration replaces it there.
        task.tracer = trace.build_tracer(task.name, task, hostname=hostname, app=task.app)
    return task.tracer  # type: ignore[no-any-return]


# A tracer returns ``(retval, info, runtime, retstr)``.  After a success ``info`` is None.  Otherwise ``info.state`` is
# the state, and ``retval`` an ``ExceptionInfo``, which pickles.


def event_of(traced: Any) -> tuple[str, dict[str, Any]] | None:
    """The type and the fields of the task event that a worker sends for a tracer's result; None when it sends none."""
    failure, info, runtime, shown = traced
    if info is None:
        return "task-succeeded", {"result": shown, "runtime": runtime}
    kind = {RETRY: "task-retried", FAILURE: "task-failed"}.get(info.state)
    if kind is None:
        return None
    error = failure.exception.exc if info.state == RETRY else get_pickled_exception(failure.exception)
    represent: Any = safe_repr  # which has no types
    return kind, {"exception": represent(error), "traceback": str(failure.traceback)}


# The chain.  ``request.chain`` is a list of signatures as dicts, the next one last.  The tracer sends the next one
# after the task has succeeded, unless the list is empty or None by then.


def next_in_chain(request: Any) -> Mapping[str, Any] | None:
    """The headers of the message that Celery sends when this task succeeds; None when it sends none."""
    if not request.chain:
        return None
    headers: Mapping[str, Any] = request.chain[-1].get("options", {}).get("headers", {})
    return headers


def chained_args(request: Any) -> list[tuple[Any, ...]]:
    """The arguments of the tasks that follow in the chain, the next one first."""
    return [tuple(each.get("args", ())) for each in reversed(request.chain or ())]


def drop_chain(request: Any) -> None:
    """Have Celery send nothing when this task succeeds."""
    request.chain = None


# Retries.  ``Task.retry`` raises ``Retry`` without sending anything when ``request.is_eager`` is true.


@contextmanager
def retries_unsent(request: Any) -> Iterator[None]:
    """Within this block ``task.retry()`` raises Retry, and sends no message."""
    was_eager = request.is_eager
    request.is_eager = True
    try:
        yield
    finally:
        request.is_eager = was_eager


# The current task.  ``celery.current_task`` and ``task.request`` are the tops of two stacks, and ``__ident_func__`` of
# a stack returns its owner: by default the thread.

#: Whose stacks this context uses; None: the thread's, or the greenlet's.
_stack_owner: ContextVar[object | None] = ContextVar("durable_celery_stacks", default=None)


class CurrentTask:
    """
    The Celery task that runs where this object is made, and its request.

    The coroutines of all ``async def`` steps share one thread.  ``entered`` gives the context of each coroutine
    stacks of its own, so that each sees its own task.
    """

    def __init__(self) -> None:
        self._task = _task_stack.top
        self._request = None if self._task is None else self._task.request_stack.top

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within this block the task is the current one, in this context and in the asyncio tasks made in it."""
        if self._task is None:
            yield
            return
        _stack_owner.set(object())
        pushed = ((_task_stack, self._task), (self._task.request_stack, self._request))
        for stack, item in pushed:
            stack.__ident_func__ = _stack_ident
            stack.push(item)
        try:
            yield
        finally:
            for stack, _ in pushed:
                stack.pop()


def _stack_ident() -> object:
    return _stack_owner.get() or get_ident()


# The prefork pool.  Its children are billiard processes with a name of their own, and ``pool.maintain_pool`` replaces
# ended ones.  ``pool._pool`` is the pool proper: it calls ``_event_process_exit(hub, child)`` when the pipe to a child
# closes.  ``consumer.hub`` is the worker's event loop, None where it has none.


def is_prefork(consumer: Any) -> bool:
    """Whether the worker of this consumer forks its children."""
    return type(getattr(consumer, "pool", None)).__module__ == "celery.concurrency.prefork"


def pool_name(worker: Any) -> str | None:
    """The pool of a worker that starts, as the module of its class is named: ``prefork``, ``thread``."""
    from celery.concurrency import ALIASES

    pool = getattr(worker, "pool_cls", None)
    # Celery turns an alias into its class only after worker_init, when the application has patched what it patches.
    path = ALIASES.get(pool, pool) if isinstance(pool, str) else getattr(pool, "__module__", None)
    return None if path is None else str(path).partition(":")[0].rpartition(".")[2][:32]


def is_pool_child() -> bool:
    """Whether this process is a child of a prefork pool."""
    return bool(current_process().name != "MainProcess")


def tasks_per_child(worker: Any) -> int | None:
    """After how many tasks a prefork child of a worker that starts ends; None: it does not."""
    return getattr(worker, "max_tasks_per_child", None) or None


def prepare_forks() -> None:
    """
    Do once in a prefork worker's main process what would otherwise be done for each child.

    - Each child sets a signal for its parent's death, for which billiard loads a parser of C if cffi is loaded.  To ask
      for that signal loads it too.
    - Celery collects garbage before each fork.  What lives now is not looked at again, here and in the children.
    """
    with suppress(OSError):
        billiard_util.get_pdeathsig()
    gc.collect()
    gc.freeze()


class ChildWatch:
    """
    Has prefork children that have ended replaced at once, without Celery's wait of up to five seconds.

    Celery's main process checks for ended children when the pipe to one of them closes.  The kernel closes a
    process's files before it reports its end, so that check often comes too early and finds the child alive.
    Celery does not check again until another child ends, or until its timer fires after five seconds.  Until then
    no child takes the ended one's place, and a task that was written to its pipe waits.  It is rare where children
    live long, and the rule with ``--max-tasks-per-child 1``.
    """

    def __init__(self) -> None:
        self._timer: Any = None
        self._watched: Any = None

    def watch(self, consumer: Any) -> None:
        """
        Check the children of this consumer's pool every ``CHILD_CHECK_SECS``, and soon after a pipe has closed.

        Celery reports a consumer as ready again after each reconnect to the broker.  Without an event loop,
        Celery's pool has a thread that checks often, and there is nothing to do.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if consumer.hub is not None:
            self._timer = consumer.hub.call_repeatedly(CHILD_CHECK_SECS, consumer.pool.maintain_pool)
            self._check_after_exits(consumer.pool._pool)

    def _check_after_exits(self, pool: Any) -> None:
        """Have the children that this pool forks from now on replaced milliseconds after their end."""
        if self._watched is pool:
            return
        self._watched = pool
        note_exit = pool._event_process_exit

        def note_exit_and_check_again(hub: Any, child: Any) -> None:
            note_exit(hub, child)
            for seconds in CHILD_RECHECK_SECS:
                hub.call_later(seconds, pool.maintain_pool)

        pool._event_process_exit = note_exit_and_check_again


# Unknown tasks.  ``consumer.strategies`` maps the name of a task to the function that receives its messages.  Celery
# fills it after the consumer's steps are made, and looks each message's name up in it.  A KeyError there means
# ``consumer.on_unknown_task(None, message, error)``.


class _Strategies(dict[str, Any]):
    """The strategies of a consumer; that of *forward* receives the messages with our header of unknown tasks."""

    def __init__(self, consumer: Any, header: str, forward: str) -> None:
        super().__init__(consumer.strategies)
        self._consumer = consumer
        self._header = header
        self._forward = forward

    def __missing__(self, name: str) -> Any:
        if self._forward not in self:
            raise KeyError(name)
        return functools.partial(self._receive, name)

    def _receive(self, name: str, message: Any, *rest: Any) -> Any:
        if not isinstance(message.headers.get(self._header), Mapping):
            return self._consumer.on_unknown_task(None, message, KeyError(name))
        message.headers["task"] = self._forward
        return self[self._forward](message, *rest)


def redirect_unknown_tasks(app: Celery, header: str, forward: str) -> None:
    """
    Have workers of this app that start from now on run the task *forward* for messages of tasks that they don't know.

    Only for messages that have this header.  Otherwise Celery throws such a message away, with an error in its log.
    """
    from celery import bootsteps

    class RedirectUnknownTasks(bootsteps.Step):  # type: ignore[misc]
        def __init__(self, consumer: Any, **options: Any) -> None:
            super().__init__(consumer, **options)
            consumer.strategies = _Strategies(consumer, header, forward)

    app.steps["consumer"].add(RedirectUnknownTasks)


# Queues.  ``app.amqp.queues.consume_from`` holds the queues by name; kombu's virtual transports (Redis, memory) count
# a queue with ``channel._size``.


def consumed_queues(app: Celery) -> list[str]:
    """
    The queues that this process takes messages from, by ``-Q``, ``task_queues`` or the default one.

    A prefork child has them from its parent, by the fork: only children that are forked later know a queue that is
    added to a running worker (``add_consumer``).
    """
    return sorted(app.amqp.queues.consume_from)


def virtual_queue_length(channel: Any, queue: str) -> int | None:
    """How many messages wait in a queue of a virtual transport; None when the transport is another."""
    from kombu.transport import virtual

    if not isinstance(channel, virtual.Channel):
        return None
    size: Any = channel._size  # which has no types
    return int(size(queue))


# Delayed delivery.  With quorum queues, ``DelayedDelivery`` makes queues for the ETAs of RabbitMQ at each of the
# application's URLs, before a consumer takes messages.  What is in the module's ``RETRIED_EXCEPTIONS`` it tries again.


def prepare_delayed_delivery_once() -> None:
    """
    Have workers of this process try each URL once.

    At each reconnect, Celery tries four times to reach a node that is down, for 17 s in which the worker takes no
    messages.  The nodes of a cluster need the queues only once, and durable sends no message with an ETA to RabbitMQ.
    """
    from celery.worker.consumer import delayed_delivery

    delayed_delivery.RETRIED_EXCEPTIONS = ()
