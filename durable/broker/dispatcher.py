"""
The dispatcher: turns, steps and wakes as Celery messages.  No other room makes them.

A message carries only ids.  The broker may lose, repeat, delay or reorder it: durable can make each message again from
the rows of the database, and a second delivery changes nothing.  So sending never raises and never retries.  The sweep
sends later what could not be sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from typing import Any

from celery import Celery
from celery.exceptions import QueueNotFound
from sqlalchemy import Connection

from .. import codec, failpoints, greenlets, measures, registry
from ..errors import ConfigurationError
from ..store import DriveRow, SendTimes, StepRow, WaitRow
from .chains import FORMAT, AdoptedChain, Chain
from .eta_budget import EtaBudget
from .progress import HEADER, HOPS, INSTALLATION, OFFERS, QUEUE, SENT, Route
from .publisher import Broker, Outgoing

#: Returns the trace in which a run's message is sent, by the run's id and its ``trace_context``.
Within = Callable[[str, str | None], AbstractContextManager[None]]

DRIVE = "durable.drive"
WAKE = "durable.wake"
#: The task that a worker runs for the message of a step that it does not know.
FORWARD = "durable.forward"
#: The kinds of messages, by the failpoint that each hits.
KINDS = {"publish.drive": "turn", "publish.step": "step", "publish.wait": "timer"}
#: The most messages that are sent in one round trip.
BATCH_SIZE = 100
#: How long after its due time the sweep checks something whose message a worker holds until then, in microseconds.
GRACE = 1_000_000


class Dispatcher:
    """Sends the messages of one engine."""

    def __init__(
        self,
        celery: Celery,
        broker: Broker,
        eta_horizon: int,
        resend_after: int,
        now: Callable[[], int],
        impossible: Callable[[StepRow, Exception], object],
        counts: measures.Measures,
        *,
        shows_arguments: bool = True,
        within: Within | None = None,
        installation: Callable[[], str | None] = lambda: None,
    ) -> None:
        """
        Args:
            broker: Takes the messages.
            eta_horizon: The setting of this name, in microseconds.
            resend_after: The setting of this name, in microseconds.
            now: Returns the database's time.
            impossible: Called with an attempt for which no message can ever be made, and the error.
            shows_arguments: Whether messages carry the steps' arguments as text, for Celery's tools.
            counts: Counts the messages.
            within: Returns the trace in which a run's message is sent, by the run and its ``trace_context``.
            installation: Returns the installation's id, which messages carry; None while it is not known.
        """
        # The sweep checks a message that it has sent before its time once it is due and may be sent again.
        self.eta_budget = EtaBudget(eta_horizon + 2 * resend_after + GRACE)
        self.broker = broker
        self._celery = celery
        # The answers of the application's router, by task and queue, since each message needs one.
        self._queues: dict[tuple[str, str | None], str | None] = {}
        self._horizon = eta_horizon
        self._resend_after = resend_after
        self._now = now
        self._impossible = impossible
        self._shows_arguments = shows_arguments
        self._counts = counts
        self._within = within
        self._installation = installation

    def close(self) -> None:
        """Close connections that are not in use."""
        self.broker.close()

    def send_turn(self, row: DriveRow, *, not_before: int = 0, hops: int = 0) -> bool:
        """
        Send a turn.  Returns whether the broker took it.

        Args:
            not_before: Deliver it then; ``plan_at`` or the sweep has taken it from the ETA budget.
            hops: How often it was sent on, with this time.
        """
        turn = self._turn(DRIVE, row.run_id, row.queue, row.priority, hops)
        return self._publish("publish.drive", [self._due(row, turn, not_before)]) == 1

    def send_turns(self, rows: Iterable[DriveRow], *, not_before: int = 0) -> int:
        """
        Send the turns of several runs; *not_before* is that of ``send_turn``.

        Returns how many of them, from the first on, the broker took.
        """
        turns = (self._due(row, self._turn(DRIVE, row.run_id, row.queue, row.priority), not_before) for row in rows)
        return self._publish("publish.drive", turns)

    def send_first_turns(self, rows: Sequence[DriveRow], together: int) -> None:
        """
        Send the first turns of runs, those of up to *together* runs of one queue in one message.

        The message is a chain: a worker takes all of it at once, and one of an earlier release one after the other.
        """
        by_queue: dict[str | None, list[DriveRow]] = {}
        for row in rows:
            by_queue.setdefault(row.queue, []).append(row)
        groups = [some[at : at + together] for some in by_queue.values() for at in range(0, len(some), together)]
        self._publish("publish.drive", (self._first_turns(group) for group in groups))

    def _first_turns(self, rows: Sequence[DriveRow]) -> Outgoing:
        first, *others = [self._turn(DRIVE, row.run_id, row.queue, row.priority) for row in rows]
        return self._due(rows[0], Chain(first, tuple(others)) if others else first, 0)

    def send_step(self, row: StepRow, *, hops: int = 0) -> bool:
        """Send one attempt, unless it is deferred.  Returns whether the broker took it."""
        return self.send_steps([row], hops=hops) == 1

    def send_steps(self, rows: Iterable[StepRow], *, hops: int = 0) -> int:
        """
        Send attempts.  The second task of each chain drives the run once the outcome is recorded.

        Returns how many of them, from the first on, the broker took.  Deferred ones are neither sent nor counted.
        """
        return self._publish("publish.step", (self._step(row, hops) for row in rows if not row.is_deferred))

    def _step(self, row: StepRow, hops: int) -> Outgoing:
        drive = self._turn(DRIVE, row.run_id, row.queue, row.priority)
        is_adopted = isinstance(registry.steps.get(row.name), registry.AdoptedStep)
        if is_adopted and row.name in self._celery.tasks:
            what: Any = AdoptedChain(
                self._celery, row, drive, self._header_of(row, hops), self.shown_arguments(row.name, row.args)
            )
        else:
            what = Chain(self._attempt(row, hops), (drive,))
        return replace(self._due(row, what, row.not_before), impossible=partial(self._impossible, row))

    def _attempt(self, row: StepRow, hops: int) -> Any:
        step = self._celery.signature(row.name, immutable=True)
        queue = _option_of(row.name, "queue") if row.name in registry.steps else row.step_queue
        return step.set(
            headers=self._header_of(row, hops),
            task_id=f"{row.run_id}:{row.op_id}:{row.attempt}"[:255],
            retries=row.attempt - 1,
            **FORMAT | self.shown_arguments(row.name, row.args),
            **_options(queue, _option_of(row.name, "priority")),
        )

    def send_wakes(self, rows: Iterable[WaitRow]) -> int:
        """
        Send the messages that end waits when they are due, at once if they are due by the database's clock.

        Returns how many of them, from the first on, the broker took.  Deferred ones are neither sent nor counted.
        """
        return self._publish("publish.wait", (self._wait(row) for row in rows if not row.is_deferred))

    def _wait(self, row: WaitRow) -> Outgoing:
        wake = self._celery.signature(WAKE, args=(row.run_id, row.op_id), immutable=True)
        shown = {"argsrepr": f"({row.run_id!r}, {row.op_id!r})"}
        wake.set(headers=self._sent(WAKE, row.queue), **FORMAT | shown, **_options(row.queue, row.priority))
        turn = self._turn(DRIVE, row.run_id, row.queue, row.priority)
        return self._due(row, Chain(wake, (turn,)), row.due_at)

    def _due(self, row: DriveRow | StepRow | WaitRow, what: Any, at: int) -> Outgoing:
        delay = at and at - self._now()
        within = nullcontext if self._within is None else partial(self._within, row.run_id, row.trace_context)
        return Outgoing(what, delay / 1_000_000 if delay > 0 else None, within=within)

    def _publish(self, point: str, messages: Iterable[Outgoing]) -> int:
        """Send messages, ``BATCH_SIZE`` at a time.  In tests a failpoint may lose or repeat one."""
        taken, remaining = 0, iter(messages)
        while batch := list(islice(remaining, BATCH_SIZE)):
            copies = [message for message in batch for _ in range(failpoints.copies(point))]
            if copies and not greenlets.in_thread(self.broker.send, copies):
                break
            for _ in batch:
                failpoints.hit("publish.sent")
            taken += len(batch)
        if taken:
            self._counts.count(measures.MESSAGES_SENT, KINDS[point], by=taken)
        return taken

    def plan(self, now: int) -> SendTimes:
        """The sending times for the row of something whose message is sent right after the commit."""
        return SendTimes(now + self._resend_after, now)

    def plan_at(self, tx: Connection, now: int, due_at: int) -> SendTimes:
        """The same for something due later: its message waits in a worker, within the ETA budget, or is deferred."""
        if due_at <= now:
            return self.plan(now)
        if not self.may_hold(due_at - now):
            return SendTimes(due_at - self._horizon if self.holds_etas else due_at, None)
        return SendTimes(due_at + GRACE, due_at) if self.eta_budget.take(tx, now) else SendTimes(due_at, None)

    def queue_of_step(self, name: str) -> str | None:
        """
        The queue that messages of this step go to: its own, else the one of the application's router.

        None when the router names an exchange and no queue.

        Raises:
            celery.exceptions.QueueNotFound: The application does not have the queue.
        """
        task = self._celery.tasks.get(name)
        return self._routed(name, _option_of(name, "queue") or getattr(task, "queue", None))

    def find_queue_of_step(self, name: str) -> str | None:
        """``queue_of_step``, but None for a queue that the application does not have."""
        try:
            return self.queue_of_step(name)
        except QueueNotFound:
            return None

    def queue_of_turn(self, queue: str | None) -> str | None:
        """The queue that the turns of a run with this *queue* go to; like ``queue_of_step``."""
        return self._routed(DRIVE, queue)

    def check_queue_of_turn(self, queue: str | None) -> None:
        """Raise ConfigurationError when the application does not have the queue of a run."""
        try:
            self.queue_of_turn(queue)
        except QueueNotFound as error:
            raise ConfigurationError(
                f"No turn of this run could be sent: {error}, and task_create_missing_queues is off.  Correct the"
                " queue, or add it to task_queues."
            ) from error

    def find_queue_of_turn(self, queue: str | None) -> str | None:
        """``queue_of_turn``, but None for a queue that the application does not have."""
        return self._find_queue(DRIVE, queue)

    def route_of_turn(self, queue: str | None, priority: int | None) -> Route:
        """The route of the turns of a run with this *queue* and *priority*."""
        return self._find_queue(DRIVE, queue), self._priority(DRIVE, queue, priority)

    def route_of_wake(self, queue: str | None, priority: int | None) -> Route:
        """The route of the messages that end its waits."""
        return self._find_queue(WAKE, queue), self._priority(WAKE, queue, priority)

    def route_of_step(self, queue: str | None, name: str) -> Route:
        """The route of a step's messages that were sent to this *queue*."""
        return queue, self._priority(name, queue, _option_of(name, "priority"))

    def _routed(self, task: str, queue: str | None) -> str | None:
        key = (task, queue)
        if key not in self._queues:
            found = self._celery.amqp.router.route(_options(queue, None), task).get("queue")
            self._queues[key] = None if found is None else str(found.name)
        return self._queues[key]

    def _find_queue(self, task: str, queue: str | None) -> str | None:
        try:
            return self._routed(task, queue)
        except QueueNotFound:
            return None

    def _priority(self, name: str, queue: str | None, given: int | None) -> int:
        """The priority that Celery sends: the given one, else the task's, else the one of the application's router."""
        found = given if given is not None else getattr(self._celery.tasks.get(name), "priority", None)
        if found is None:
            with suppress(QueueNotFound):
                found = self._celery.amqp.router.route(_options(queue, None), name).get("priority")
        return int(found or 0)

    @cached_property
    def holds_etas(self) -> bool:
        """
        Whether a message may wait in a worker until it is due.

        With AMQP such messages fill the worker's prefetch, and with RabbitMQ 4 the worker then consumes nothing at
        all (rabbitmq-server#11948).  So there each message is sent when it is due.
        """
        return not str(self._celery.connection_for_write().transport.driver_type).startswith("amqp")

    def may_hold(self, delay: int) -> bool:
        """Whether a message that is due after so many microseconds may wait in a worker, within the ETA budget."""
        return self.holds_etas and delay <= self._horizon

    def _turn(self, name: str, run_id: str, queue: str | None, priority: int | None, hops: int = 0) -> Any:
        turn = self._celery.signature(name, args=(run_id,), immutable=True)
        shown = {"argsrepr": f"({run_id!r},)"}
        return turn.set(headers=self._sent(name, queue, hops), **FORMAT | shown, **_options(queue, priority))

    def shown_arguments(self, name: str, args: str | None) -> dict[str, str]:
        """
        A step's arguments as Celery's tools show them, by Celery's names for the two texts.

        Args:
            args: The encoded arguments; None where they are too long to be shown.
        """
        given = _option_of(name, "argsrepr")
        if given is not None:
            return {"argsrepr": given, "kwargsrepr": "{}"}
        if not self._shows_arguments:
            return {"argsrepr": "()", "kwargsrepr": "{}"}
        return {"argsrepr": "()", "kwargsrepr": "{...}" if args is None else codec.shown_arguments(args)}

    def _header_of(self, row: StepRow, hops: int) -> dict[str, Any]:
        queue = self.find_queue_of_step(row.name) if row.name in registry.steps else row.step_queue
        sent = self._fields(queue, hops) | ({OFFERS: True} if row.has_offers else {})
        return {HEADER: {"run": row.run_id, "op": row.op_id, "attempt": row.attempt, **sent}}

    def _sent(self, task: str, queue: str | None, hops: int = 0) -> dict[str, Any]:
        return {HEADER: self._fields(self._find_queue(task, queue), hops)}

    def _fields(self, queue: str | None, hops: int) -> dict[str, Any]:
        """The fields of our header that every message has."""
        installation = self._installation()
        fields = {INSTALLATION: installation} if installation is not None else {}
        return {**fields, SENT: self._now(), QUEUE: queue, **({HOPS: hops} if hops else {})}


def _options(queue: str | None, priority: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if queue is not None:
        options["queue"] = queue
    if priority is not None:
        options["priority"] = priority
    return options


def _option_of(step: str, option: str) -> Any:
    """The option of ``@step(queue=…, priority=…)``; None when this process has not registered the step."""
    defined = registry.steps.get(step)
    return None if defined is None else defined.options.get(option)
