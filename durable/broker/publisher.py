"""
The publisher: sends messages to the broker, and gives up at the first error.

Celery's own pool tries to connect for ``broker_connection_timeout``, even with ``retry=False``.  The sender of a
webhook cannot wait that long.  So durable publishes over connections of its own, which do not retry.  The sweep sends
later what is not sent now.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol, TypeVar

from celery import Celery
from kombu.exceptions import (
    BatchPublishError,
    KombuError,
    LimitExceeded,
    OperationalError,
    SerializationError,
    SerializerNotInstalled,
)

from .. import forks
from ..current import running_step
from ..sandbox import log_records
from .celery_internals import virtual_queue_length
from .producers import Producers
from .task_sender import TaskSender

#: How long nothing is published after a failure, so that a broker that hangs costs its timeout once.
_PAUSE_SECS = 1.0

#: AMQP's codes for a queue that does not exist, and for a message whose queue is missing, locked, or declared with
#: other options.
_NOT_FOUND = 404
_REFUSED = (_NOT_FOUND, 405, 406)

#: Errors of making a message that another try raises again: an unknown queue, an option with an impossible value.
_PERMANENT = (SerializationError, SerializerNotInstalled, LookupError, TypeError, ValueError)

T = TypeVar("T")

log = log_records.get("durable.dispatch")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """
    A message to send.

    Attributes:
        what: A signature or a chain.
        countdown: Deliver it so many seconds from now; None: at once.
        impossible: Called with the error when the message can never be made.
        within: Entered around the sending: the trace of the run, in which Celery's instrumentation makes its span.
    """

    what: Any
    countdown: float | None = None
    impossible: Callable[[Exception], object] | None = None
    within: Callable[[], AbstractContextManager[None]] = nullcontext


class Broker(Protocol):
    """The interface of a broker for the rest of the library."""

    def send(self, messages: Sequence[Outgoing]) -> bool:
        """
        Send messages.  Returns False when the broker did not take all of them; it may have taken some.  Never raises.

        A message that cannot be made is reported and counts as taken, so that the others are sent.
        """

    def length(self, queue: str) -> int | None:
        """How many messages wait in a queue; 0 for a queue that does not exist, None when that is not known."""

    def keep(self, queue: str) -> bool:
        """Put a message into a queue that no worker reads.  Returns whether that succeeded."""

    def close(self) -> None:
        """Close connections that are not in use."""


class Publisher:
    """Publishes for one Celery app.  Connections are opened when they are needed, and opened again after a fork."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._paused_until = 0.0
        self._eager = _Eager()
        self._tasks = TaskSender(celery)
        self._inherited: list[Producers] = []
        self._producers: Producers | None = None
        self._begin_in_process()
        forks.call_in_child(self._begin_in_process)

    def _begin_in_process(self) -> None:
        """A child process opens connections of its own."""
        self._lock = threading.Lock()
        if self._producers is not None:
            # py-amqp shuts a connection down when it is garbage-collected, and the parent still uses this one.
            self._inherited.append(self._producers)
            self._producers = None

    def send(self, messages: Sequence[Outgoing]) -> bool:
        """
        Send messages, in one round trip where the transport can (Redis).

        Returns False when the broker did not take all of them.  It may have taken some, and each is harmless twice.
        A message that cannot be made is reported and counts as taken, so that the others are sent.  Never raises.
        """
        if time.monotonic() < self._paused_until:
            return False
        for last in (False, True):
            try:
                unmade = self._send(messages)
                break
            except (KombuError, *self._trouble) as error:
                self.close()
                if not last:
                    continue  # it may have been a connection from before a restart of the broker
                if getattr(error, "code", None) not in _REFUSED:
                    self._paused_until = time.monotonic() + _PAUSE_SECS
                    log.warning("The broker took no message (%s); the sweep sends it later.", type(error).__name__)
                    return False
                # The broker refuses one of these messages: send the others.
                if len(messages) > 1:
                    return all([self.send([message]) for message in messages])
                unmade = [(messages[0], error)]
        for message, reason in unmade:
            is_permanent = isinstance(reason, _PERMANENT)
            name = getattr(message.what, "task", None) or message.what.name
            kind = type(reason).__name__
            log.error("A message of %s cannot be made (%s: %s); the others are sent.", name, kind, reason)
            if is_permanent and message.impossible is not None:
                message.impossible(reason)
        return True

    def length(self, queue: str) -> int | None:
        """How many messages wait in a queue; 0 for one that does not exist, None where that is not known."""
        if self._celery.conf.task_always_eager:
            return 0

        def count(producer: Any) -> int | None:
            length = virtual_queue_length(producer.channel, queue)
            if length is not None:
                return length
            # The server closes the channel when the queue does not exist, or belongs to another connection.
            with producer.connection.channel() as own:
                try:
                    return int(own.queue_declare(queue=queue, passive=True).message_count)
                except producer.connection.channel_errors as error:
                    return 0 if getattr(error, "code", None) == _NOT_FOUND else None

        return self._ask(count)

    def keep(self, queue: str) -> bool:
        """Put a message into a queue that no worker reads.  Returns whether that succeeded."""

        def put(producer: Any) -> bool:
            # Of the application's type: a classic queue is gone with its node, where the others are replicated.
            default = self._celery.amqp.queues[self._celery.conf.task_default_queue]
            kind = (default.queue_arguments or {}).get("x-queue-type")
            arguments = {"x-queue-type": kind} if kind else None
            producer.channel.queue_declare(queue=queue, durable=True, auto_delete=False, arguments=arguments)
            producer.publish("", exchange="", routing_key=queue, delivery_mode=2, retry=False)
            return True

        return self._ask(put) is True

    def _ask(self, question: Callable[[Any], T]) -> T | None:
        """Call *question* with a producer.  Returns what it returned; None when the broker does not answer."""
        if time.monotonic() < self._paused_until or self._celery.conf.task_always_eager:
            return None
        try:
            with self._producer() as producer:
                return question(producer)
        except (KombuError, *self._trouble) as error:
            log.debug("The broker does not answer (%s).", type(error).__name__)
            self.close()
            return None

    def close(self) -> None:
        """Close connections that are not in use; those that are, when they are no longer."""
        with self._lock:
            producers, self._producers = self._producers, None
        if producers is not None:
            producers.retire()

    @cached_property
    def _trouble(self) -> tuple[Any, ...]:
        """The errors that Celery raises when the broker does not work."""
        # This connection is never opened.  It only has the list of the errors that its transport raises.
        unopened = self._celery.connection_for_write()
        raised = (*unopened.connection_errors, *unopened.channel_errors)
        return (OperationalError, BatchPublishError, LimitExceeded, OSError, *raised)

    def _send(self, messages: Sequence[Outgoing]) -> list[tuple[Outgoing, Exception]]:
        """Send messages.  Returns those that could not be made, each with its error."""
        unmade: list[tuple[Outgoing, Exception]] = []
        if self._celery.conf.task_always_eager:
            # One task of a chain after the other: Celery's own chain waits for each result, and Celery refuses to
            # wait while another thread runs a task, since it notes that for all threads.
            for message in messages:
                for link in getattr(message.what, "tasks", (message.what,)):
                    self._eager.do(partial(_apply, message, link))
            return unmade
        alone = len(messages) == 1
        with (
            self._producer() as producer,
            nullcontext() if alone else producer.batch(),
        ):
            for message in messages:
                try:
                    with message.within():
                        self._tasks.send(message.what, producer, message.countdown)
                except Exception as error:
                    # Celery raises KeyError for an unknown queue; kombu lists it among the errors of Redis connections.
                    if isinstance(error, self._trouble) and not isinstance(error, LookupError):
                        raise
                    unmade.append((message, error))
        return unmade

    def _producer(self) -> AbstractContextManager[Any]:
        with self._lock:
            if self._producers is None:
                self._producers = Producers(self._celery.connection_for_write())
            return self._producers.producer()


def _apply(message: Outgoing, link: Any) -> None:
    """Run one task of a message, in eager mode."""
    with message.within():
        link.apply_async(countdown=message.countdown)


class _Eager(threading.local):
    """
    Runs the tasks of Celery's eager mode one after the other, so that a run of many steps does not nest calls.

    A task that a step's function sends runs before the function continues, because it may wait for the outcome.
    """

    waiting: deque[Callable[[], object]] | None = None

    def do(self, act: Callable[[], object]) -> None:
        if self.waiting is not None and running_step.get() is None:
            self.waiting.append(act)
            return
        outer, self.waiting = self.waiting, deque([act])
        token = running_step.set(None)
        try:
            while self.waiting:
                self.waiting.popleft()()
        finally:
            running_step.reset(token)
            self.waiting = outer
