"""
Commands to Celery messages; the only place that builds chains.

A message carries ids only.  The broker may lose, repeat, delay or reorder it:
each can be made again from the store's rows, and each is harmless twice.  So
publishing never raises and never retries here: what fails is sent by the
sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from celery import Celery, chain

from . import registry
from .publish import Publisher
from .store.steps import StepRow
from .store.waits import WaitRow

DRIVE = "durable.drive"
WAKE = "durable.wake"
#: The message header that says which attempt a step's message carries.
HEADER = "durable"

#: How much later than its due time the sweep looks at a wait whose alarm clock is set, in microseconds.
_GRACE = 1_000_000


class Dispatcher:
    """Sends for one engine.  *eta_horizon* is in microseconds, *now* says the database's time."""

    def __init__(self, celery: Celery, eta_horizon: int, now: Callable[[], int]) -> None:
        self._celery = celery
        self._horizon = eta_horizon
        self._now = now
        self._publisher = Publisher(celery)

    def close(self) -> None:
        """Close connections that are not in use."""
        self._publisher.close()

    def drive(self, run_id: str, queue: str | None, priority: int | None, *, not_before: int = 0) -> bool:
        """Send a turn; later than *eta_horizon* from now is left to the sweep."""
        delay = max(0, not_before - self._now())
        if delay and not self._holds(delay):
            return False
        return self._publisher.send(self._turn(DRIVE, run_id, queue, priority), countdown=_seconds(delay))

    def step(self, row: StepRow) -> bool:
        """Send one attempt; the link drives the run once its outcome is recorded."""
        delay = max(0, row.not_before - self._now())
        if delay and not self._holds(delay):
            return False
        address = {"run": row.run_id, "op": row.op_id, "attempt": row.attempt}
        step = self._celery.signature(row.name, immutable=True).set(
            headers={HEADER: address},
            task_id=f"{row.run_id}:{row.op_id}:{row.attempt}"[:255],
            **_options(_queue(row.name), None),
        )
        return self._publisher.send(
            chain(step, self._turn(DRIVE, row.run_id, row.queue, row.priority)), countdown=_seconds(delay)
        )

    def wait(self, row: WaitRow, *, overdue: bool = False) -> bool:
        """Set a wait's alarm clock; one that is *overdue* rings at once, whatever the worker's clock says."""
        delay = 0 if overdue else max(0, row.due_at - self._now())
        if delay and not self._holds(delay):
            return False
        wake = self._celery.signature(WAKE, args=(row.run_id, row.op_id), immutable=True)
        wake.set(**_options(row.queue, row.priority))
        return self._publisher.send(
            chain(wake, self._turn(DRIVE, row.run_id, row.queue, row.priority)), countdown=_seconds(delay)
        )

    def first_send_at(self, due_at: int, now: int) -> int:
        """When the sweep first looks at something due then, which is sent right after the commit if it can be."""
        if due_at <= now:
            return now + _GRACE
        if not self.holds_etas:
            return due_at
        return due_at + _GRACE if due_at - now <= self._horizon else due_at - self._horizon

    @cached_property
    def holds_etas(self) -> bool:
        """
        Whether a message may wait in a worker until it is due.

        On amqp such messages fill the worker's prefetch, and with RabbitMQ 4 it then consumes nothing
        at all (rabbitmq-server#11948): there everything is published when it is due.
        """
        return not str(self._celery.connection_for_write().transport.driver_type).startswith("amqp")

    def _holds(self, delay: int) -> bool:
        return delay <= self._horizon and self.holds_etas

    def _turn(self, name: str, run_id: str, queue: str | None, priority: int | None) -> Any:
        return self._celery.signature(name, args=(run_id,), immutable=True).set(**_options(queue, priority))


def _options(queue: str | None, priority: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if queue is not None:
        options["queue"] = queue
    if priority is not None:
        options["priority"] = priority
    return options


def _queue(step: str) -> str | None:
    """The queue that ``@step(queue=…)`` names, where this process knows the step."""
    known = registry.steps.get(step)
    return None if known is None else known.options.get("queue")


def _seconds(delay: int) -> float | None:
    return delay / 1_000_000 if delay else None
