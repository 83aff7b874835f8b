"""The broker of an environment: messages in a list, delivered when they are due, lost or repeated when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..broker import DRIVE, HEADER, WAKE, Outgoing
from .clock import Clock


@dataclass(frozen=True, slots=True)
class Message:
    """One message: the task, its run and operation, the attempt of a step, and when it may be delivered."""

    number: int
    task: str
    run_id: str
    op_id: str
    attempt: int
    due_at: int
    #: What has to be done for a task that is not durable's own.
    adopted: Any = None

    @property
    def what(self) -> str:
        """What it asks for: the same in each play of a workflow."""
        return f"{self.task} {self.op_id}".strip()


#: What becomes of a message on its way: none, one, or more of it.
Fate = Callable[[Message], list[Message]]


class Outbox:
    """Takes what an engine sends, and keeps it over the end of the engine's process, as a broker does."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._messages: list[Message] = []
        self._kept: dict[str, int] = {}
        self.sent = 0
        self.fate: Fate = lambda message: [message]
        self.check_alive: Callable[[], None] = lambda: None

    # What the dispatcher wants of a broker.

    def send(self, messages: Sequence[Outgoing]) -> bool:
        """Take signatures and chains; the link of a chain is sent when the first task has run."""
        self.check_alive()
        for message in messages:
            self.sent += 1
            due_at = self._clock.now + int((message.countdown or 0) * 1_000_000)
            self._messages += self.fate(_read(message.what, self.sent, due_at))
        return True

    def length(self, queue: str) -> int | None:
        """How many messages wait."""
        self.check_alive()
        return self._kept.get(queue, 0) or sum(message.due_at <= self._clock.now for message in self._messages)

    def keep(self, queue: str) -> bool:
        """Keep a message that nobody reads."""
        self._kept[queue] = 1
        return True

    def close(self) -> None:
        """There is nothing to close."""

    # What delivers.

    def take(self) -> Message | None:
        """The next message that is due, None when there is none."""
        due = [message for message in self._messages if message.due_at <= self._clock.now]
        if not due:
            return None
        first = min(due, key=lambda message: (message.due_at, message.number))
        self._messages.remove(first)
        return first

    def next_due_at(self) -> int | None:
        """When the next message is due."""
        return min((message.due_at for message in self._messages), default=None)


def _read(message: Any, number: int, due_at: int) -> Message:
    row = getattr(message, "row", None)
    if row is not None:
        return Message(number, row.name, row.run_id, row.op_id, row.attempt, due_at, adopted=message)
    first = message.tasks[0] if hasattr(message, "tasks") else message
    if first.task in (DRIVE, WAKE):
        run_id, op_id = (*first.args, "")[:2]
        return Message(number, first.task, run_id, op_id, 0, due_at)
    address = first.options["headers"][HEADER]
    return Message(number, first.task, address["run"], address["op"], address["attempt"], due_at)


def later(message: Message, micros: int) -> Message:
    """The same message, late."""
    return replace(message, due_at=message.due_at + micros)
