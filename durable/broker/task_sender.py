"""
Sends a task's message with less work than Celery's ``apply_async``.

``Signature.apply_async`` calls ``Task.apply_async``, and that calls ``Celery.send_task``.  They merge the options
three times and make a result that nobody asks for.  The message itself is Celery's: its router, its
``create_task_message`` and its ``send_task_message`` make and send it, with the signals before and after, the
``task-sent`` event and the declaration of the queue.

Where an application, or a library such as Sentry's, has changed one of these methods, theirs are called.
"""

from __future__ import annotations

from functools import cached_property
from types import FunctionType
from typing import Any

from celery import Celery, Task
from celery.app import base as celery_base
from celery.app import task as celery_task
from celery.canvas import Signature
from kombu.entity import Queue
from kombu.utils.uuid import uuid

from ..sandbox import unguarded
from .chains import Chain
from .producers import Producer

#: What our signatures say.  Those that say more are sent by ``apply_async``.
_OPTIONS = frozenset(
    {
        "queue",
        "priority",
        "headers",
        "task_id",
        "retries",
        "serializer",
        "compression",
        "expires",
        "argsrepr",
        "kwargsrepr",
    }
)

_ROUTED = ("queue", "priority", "serializer", "compression")


class TaskSender:
    """Sends the messages of one Celery app."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    def send(self, what: Any, producer: Producer, countdown: float | None) -> None:
        """
        Send a signature or a chain by this producer.  Raises as ``apply_async``.

        Args:
            countdown: Deliver it so many seconds from now; None: at once.
        """
        first, chain = (what.first, what.to_come) if isinstance(what, Chain) else (what, None)
        task = self._plain_task(first) if countdown is None or self._has_etas_only else None
        if task is not None:
            self._send(task, first, chain, producer, countdown)
            return
        options = {} if countdown is None else {"countdown": countdown}
        what.apply_async(producer=producer, retry=False, **options)

    def _plain_task(self, what: Any) -> Task | None:
        """The task of a signature, if nobody has changed how Celery sends it."""
        if type(what) is not Signature or not _OPTIONS.issuperset(what["options"]):
            return None
        celery = self._celery
        is_changed = "send_task" in vars(celery) or not _is_own(type(celery).send_task, celery_base)
        if is_changed or self._inherits_priority:
            return None
        task = celery.tasks.get(what["task"])
        return task if task is not None and _is_sent_as_usual(task) else None

    @cached_property
    def _has_etas_only(self) -> bool:
        """Whether a message with a countdown goes the way of any other.  Quorum queues may delay it by themselves."""
        return not str(self._celery.connection_for_write().transport.driver_type).startswith("amqp")

    @cached_property
    def _inherits_priority(self) -> bool:
        return bool(self._celery.conf.task_inherit_parent_priority)

    @cached_property
    def _sends_events(self) -> bool:
        return bool(self._celery.conf.task_send_sent_event)

    def _send(
        self, task: Task, what: Any, chain: list[Any] | None, producer: Producer, countdown: float | None
    ) -> None:
        """What ``apply_async`` and ``send_task`` do for the options of our messages."""
        celery, given = self._celery, what["options"]
        amqp, name, args = celery.amqp, what["task"], what["args"]
        route = task._get_exec_options() | {key: given[key] for key in _ROUTED if key in given}
        limits = {key: route.pop(key, None) for key in ("time_limit", "soft_time_limit")}
        route.pop("expires", None)
        route = amqp.router.route(route, name, args, {}, task)
        parent = celery.current_worker_task
        request = None if parent is None else parent.request
        message = amqp.create_task_message(
            given.get("task_id") or uuid(),
            name,
            args,
            {},
            countdown=countdown,
            retries=given.get("retries", 0),
            reply_to=celery.thread_oid,
            create_sent_event=self._sends_events,
            root_id=request and (request.root_id or request.id),
            parent_id=request and request.id,
            chain=chain,
            ignore_result=True,
            argsrepr=given.get("argsrepr"),
            kwargsrepr=given.get("kwargsrepr"),
            **limits,
        )
        with producer.connection._reraise_as_library_errors():
            queue = route.get("queue")
            if type(queue) is Queue:
                route["queue"] = producer.bound(queue)
            amqp.send_task_message(producer, name, message, retry=False, headers=given.get("headers"), **route)


def _is_sent_as_usual(task: Task) -> bool:
    """Whether Celery's own ``apply_async`` sends the task, without a result and without a name of its own for tools."""
    kind = type(task)
    is_usual = task.ignore_result and kind.shadow_name is Task.shadow_name and task._dump_pydantic_arguments is None
    # Limits that contradict each other are refused by apply_async.
    has_limits = task.soft_time_limit and task.time_limit
    return is_usual and not has_limits and "apply_async" not in vars(task) and _is_own(kind.apply_async, celery_task)


def _is_own(function: Any, module: Any) -> bool:
    """Whether a method is what a module of Celery's defines, perhaps with durable's guard."""
    original = unguarded(function)
    # Neither a wrapper, which may have the attributes of what it wraps, nor another function.
    return type(original) is FunctionType and original.__code__.co_filename == module.__file__
