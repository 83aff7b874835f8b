"""
Chains: the task that ends an operation, and the turn that then drives its run; or the first turns of several runs.

They are Celery's own messages, made without its canvas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celery import Celery

from ..store import StepRow

#: The form of our messages, whatever the app's or an adopted task's settings are: every worker reads JSON.
#: Celery would make the texts that its tools show from the message's own arguments, and needs long for that.
#: No message expires: a worker revokes the id of one that does, and refuses the next message of the attempt too.
FORMAT: dict[str, Any] = {
    "serializer": "json",
    "compression": None,
    "expires": None,
    "argsrepr": "()",
    "kwargsrepr": "{}",
}


@dataclass(frozen=True)
class Chain:
    """``chain(first, *others)`` without Celery's canvas, which costs more than the rest of sending."""

    first: Any
    others: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The name of the task."""
        return str(self.first.task)

    @property
    def tasks(self) -> tuple[Any, ...]:
        """The tasks in their order, as ``celery.chain`` has them."""
        return self.first, *self.others

    @property
    def to_come(self) -> list[Any]:
        """The others as Celery's messages have them: the next one last."""
        return list(reversed(self.others))

    def apply_async(self, **options: Any) -> None:
        self.first.apply_async(chain=self.to_come, **options)


@dataclass(frozen=True)
class AdoptedChain:
    """
    ``chain(step, drive)`` for an adopted task, since ``Task.apply_async`` refuses to send it without its arguments.

    Its id is the same in each attempt, as with Celery's own retries.
    """

    celery: Celery
    row: StepRow
    drive: Any
    headers: dict[str, Any]
    shown: dict[str, str]

    @property
    def name(self) -> str:
        """The name of the task."""
        return self.row.name

    def apply_async(self, **options: Any) -> None:
        task = self.celery.tasks[self.row.name]
        message = {
            "task_id": f"{self.row.run_id}:{self.row.op_id}"[:255],
            "headers": self.headers,
            "retries": self.row.attempt - 1,
        }
        if self.celery.conf.task_always_eager:
            task.apply(throw=False, **message)  # without a chain: the attempt drives the run itself
        else:
            message |= {"ignore_result": task.ignore_result, **FORMAT, **self.shown}
            self.celery.send_task(task.name, chain=[self.drive], **message, **options)
