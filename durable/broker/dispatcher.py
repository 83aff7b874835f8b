"""
Commands to Celery messages; the only place that builds chains.

A message carries ids only.  The broker may lose, repeat, delay or reorder it:
each can be made again from the store's rows, and each is harmless twice.  So
publishing never raises and never retries here: what fails is sent by the
sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any

from celery import Celery
from celery.exceptions import QueueNotFound
from sqlalchemy import Connection

from .. import failpoints, registry
from ..errors import ConfigurationError
from ..store import DriveRow, SendTimes, StepRow, WaitRow
from .eta_budget import EtaBudget
from .progress import HEADER, QUEUE, SENT, Line
from .publisher import Broker, Outgoing

DRIVE = "durable.drive"
WAKE = "durable.wake"
#: How our messages are written, whatever the app and an adopted task say: ids only, in what every worker reads.
FORMAT: dict[str, Any] = {"serializer": "json", "compression": None}
#: So many messages are sent in one go.
TOGETHER = 100
#: How much later than its due time the sweep looks at something whose message a worker holds until then, microseconds.
GRACE = 1_000_000


class Dispatcher:
    """Sends for one engine."""

    def __init__(
        self,
        celery: Celery,
        broker: Broker,
        eta_horizon: int,
        patience: int,
        now: Callable[[], int],
        impossible: Callable[[StepRow, Exception], object],
    ) -> None:
        """
        Args:
            broker: Takes the messages.
            eta_horizon, patience: In microseconds; what *patience* means is the setting ``resend_after``.
            now: Says the database's time.
            impossible: Called for an attempt of which no message can ever be made, with the error.
        """
        # The sweep looks at what it sent before its time once it is due and its patience is over.
        self.eta_budget = EtaBudget(eta_horizon + 2 * patience + GRACE)
        self.broker = broker
        self._celery = celery
        # What the application's router has said, by task and queue: it is asked for every message.
        self._queues: dict[tuple[str, str | None], str | None] = {}
        self._horizon = eta_horizon
        self._patience = patience
        self._now = now
        self._impossible = impossible

    def close(self) -> None:
        """Close connections that are not in use."""
        self.broker.close()

    def drive(self, run_id: str, queue: str | None, priority: int | None, *, not_before: int = 0) -> bool:
        """Send a turn; *not_before* a moment which ``plan_at`` or the sweep has found room for."""
        turn = self._turn(DRIVE, run_id, queue, priority)
        return self._publish("publish.drive", [self._due(turn, not_before)]) == 1

    def drives(self, rows: Iterable[DriveRow]) -> int:
        """Send the turns of several runs; how many of them, from the first on, were taken."""
        turns = (self._turn(DRIVE, row.run_id, row.queue, row.priority) for row in rows)
        return self._publish("publish.drive", map(Outgoing, turns))

    def step(self, row: StepRow) -> bool:
        """Send one attempt, unless it is left."""
        return self.steps([row]) == 1

    def steps(self, rows: Iterable[StepRow]) -> int:
        """
        Send attempts; the link of each drives its run once the outcome is recorded.

        Returns how many of them, from the first on, were taken; those that are left are neither sent nor counted.
        """
        return self._publish("publish.step", (self._step(row) for row in rows if not row.is_deferred))

    def _step(self, row: StepRow) -> Outgoing:
        drive = self._turn(DRIVE, row.run_id, row.queue, row.priority)
        if self._is_adopted(row):
            what: Any = _Bare(self._celery, row, drive, self._header_of(row))
        else:
            what = _Chain(self._attempt(row), drive)
        return replace(self._due(what, row.not_before), impossible=partial(self._impossible, row))

    def _is_adopted(self, row: StepRow) -> bool:
        return isinstance(registry.steps.get(row.name), registry.AdoptedStep) and row.name in self._celery.tasks

    def _attempt(self, row: StepRow) -> Any:
        step = self._celery.signature(row.name, immutable=True)
        return step.set(
            headers=self._header_of(row),
            task_id=f"{row.run_id}:{row.op_id}:{row.attempt}"[:255],
            retries=row.attempt - 1,
            **FORMAT,
            **_options(_own(row.name, "queue"), _own(row.name, "priority")),
        )

    def waits(self, rows: Iterable[WaitRow]) -> int:
        """
        Set alarm clocks; what is due by now rings at once, whatever the worker's clock says.

        Returns how many of them, from the first on, were taken; those that are left are neither set nor counted.
        """
        return self._publish("publish.wait", (self._wait(row) for row in rows if not row.is_deferred))

    def _wait(self, row: WaitRow) -> Outgoing:
        wake = self._celery.signature(WAKE, args=(row.run_id, row.op_id), immutable=True)
        wake.set(headers=self._sent(WAKE, row.queue), **FORMAT, **_options(row.queue, row.priority))
        return self._due(_Chain(wake, self._turn(DRIVE, row.run_id, row.queue, row.priority)), row.due_at)

    def _due(self, what: Any, at: int) -> Outgoing:
        delay = at and at - self._now()
        return Outgoing(what, delay / 1_000_000 if delay > 0 else None)

    def _publish(self, point: str, messages: Iterable[Outgoing]) -> int:
        """Send messages, so many at a time; a failpoint may lose one, which nobody notices, or repeat it."""
        taken, left = 0, iter(messages)
        while together := list(islice(left, TOGETHER)):
            copies = [message for message in together for _ in range(failpoints.copies(point))]
            if copies and not self.broker.send(copies):
                break
            for _ in together:
                failpoints.hit("publish.sent")
            taken += len(together)
        return taken

    def plan(self, now: int) -> SendTimes:
        """What the row of something says whose message goes out right after the commit."""
        return SendTimes(now + self._patience, now)

    def plan_at(self, tx: Connection, now: int, due_at: int) -> SendTimes:
        """The same of something due then: its message waits in a worker where there is room, or is left."""
        if due_at <= now:
            return self.plan(now)
        if not self.may_hold(due_at - now):
            return SendTimes(due_at - self._horizon if self.holds_etas else due_at, None)
        return SendTimes(due_at + GRACE, due_at) if self.eta_budget.take(tx, now) else SendTimes(due_at, None)

    def queue_of_step(self, name: str) -> str | None:
        """
        The queue that messages of this step go to: its own, else what the application's router says.

        None where a router names an exchange and no queue.  Raises QueueNotFound, Celery's own, for a
        queue that the application does not have.
        """
        task = self._celery.tasks.get(name)
        return self._routed(name, _own(name, "queue") or getattr(task, "queue", None))

    def known_queue_of_step(self, name: str) -> str | None:
        """The same, and None for a queue that the application does not have."""
        try:
            return self.queue_of_step(name)
        except QueueNotFound:
            return None

    def queue_of_turn(self, queue: str | None) -> str | None:
        """The queue that a turn goes to, of a run with this *queue*; as ``queue_of_step``."""
        return self._routed(DRIVE, queue)

    def check_queue_of_turn(self, queue: str | None) -> None:
        """Raise ConfigurationError for a queue of a run that the application does not have."""
        try:
            self.queue_of_turn(queue)
        except QueueNotFound as error:
            raise ConfigurationError(
                f"No turn of this run could be sent: {error}, and task_create_missing_queues is off.  Correct the"
                " queue, or add it to task_queues."
            ) from error

    def known_queue_of_turn(self, queue: str | None) -> str | None:
        """The same, and None for a queue that the application does not have."""
        return self._known(DRIVE, queue)

    def line_of_turn(self, queue: str | None, priority: int | None) -> Line:
        """In which line the turns of a run with this *queue* and *priority* stand."""
        return self._known(DRIVE, queue), self._priority(DRIVE, queue, priority)

    def line_of_wait(self, queue: str | None, priority: int | None) -> Line:
        """The same of its alarm clocks."""
        return self._known(WAKE, queue), self._priority(WAKE, queue, priority)

    def line_of_step(self, queue: str | None, name: str) -> Line:
        """In which line a step's messages stand that went to this queue."""
        return queue, self._priority(name, queue, _own(name, "priority"))

    def _routed(self, task: str, queue: str | None) -> str | None:
        key = (task, queue)
        if key not in self._queues:
            found = self._celery.amqp.router.route(_options(queue, None), task).get("queue")
            self._queues[key] = None if found is None else str(found.name)
        return self._queues[key]

    def _known(self, task: str, queue: str | None) -> str | None:
        try:
            return self._routed(task, queue)
        except QueueNotFound:
            return None

    def _priority(self, name: str, queue: str | None, given: int | None) -> int:
        """What Celery makes of it: the message's own, else the task's, else what the application's router says."""
        found = given if given is not None else getattr(self._celery.tasks.get(name), "priority", None)
        if found is None:
            with suppress(QueueNotFound):
                found = self._celery.amqp.router.route(_options(queue, None), name).get("priority")
        return int(found or 0)

    @cached_property
    def holds_etas(self) -> bool:
        """
        Whether a message may wait in a worker until it is due.

        On amqp such messages fill the worker's prefetch, and with RabbitMQ 4 it then consumes nothing
        at all (rabbitmq-server#11948): there everything is published when it is due.
        """
        return not str(self._celery.connection_for_write().transport.driver_type).startswith("amqp")

    def may_hold(self, delay: int) -> bool:
        """Whether a message that is due so much later may wait in a worker, if there is room."""
        return self.holds_etas and delay <= self._horizon

    def _turn(self, name: str, run_id: str, queue: str | None, priority: int | None) -> Any:
        turn = self._celery.signature(name, args=(run_id,), immutable=True)
        return turn.set(headers=self._sent(name, queue), **FORMAT, **_options(queue, priority))

    def _header_of(self, row: StepRow) -> dict[str, Any]:
        sent = {SENT: self._now(), QUEUE: self.known_queue_of_step(row.name)}
        return {HEADER: {"run": row.run_id, "op": row.op_id, "attempt": row.attempt, **sent}}

    def _sent(self, task: str, queue: str | None) -> dict[str, Any]:
        return {HEADER: {SENT: self._now(), QUEUE: self._known(task, queue)}}


@dataclass(frozen=True)
class _Chain:
    """``chain(first, drive)``: the same message, without the canvas, which costs more than the rest of a publish."""

    first: Any
    drive: Any

    @property
    def name(self) -> str:
        """The task's."""
        return str(self.first.task)

    @property
    def tasks(self) -> tuple[Any, Any]:
        """As ``celery.chain`` has them."""
        return self.first, self.drive

    def apply_async(self, **options: Any) -> None:
        self.first.apply_async(chain=[self.drive], **options)


@dataclass(frozen=True)
class _Bare:
    """
    ``chain(step, drive)`` for an adopted task, which ``Task.apply_async`` would not send without arguments.

    Its id is the same in every attempt, as Celery's own retries have it.
    """

    celery: Celery
    row: StepRow
    drive: Any
    headers: dict[str, Any]

    @property
    def name(self) -> str:
        """The task's."""
        return self.row.name

    def apply_async(self, **options: Any) -> None:
        task = self.celery.tasks[self.row.name]
        known = {
            "task_id": f"{self.row.run_id}:{self.row.op_id}"[:255],
            "headers": self.headers,
            "retries": self.row.attempt - 1,
        }
        if self.celery.conf.task_always_eager:
            task.apply(throw=False, **known)  # which knows no chains: the attempt drives the run itself
        else:
            known |= {"ignore_result": task.ignore_result, **FORMAT}
            self.celery.send_task(task.name, chain=[self.drive], **known, **options)


def _options(queue: str | None, priority: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if queue is not None:
        options["queue"] = queue
    if priority is not None:
        options["priority"] = priority
    return options


def _own(step: str, option: str) -> Any:
    """What ``@step(queue=…, priority=…)`` says, where this process knows the step."""
    known = registry.steps.get(step)
    return None if known is None else known.options.get(option)
