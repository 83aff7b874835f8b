"""The broker of an environment: a list of messages, which tests can lose, repeat or delay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..broker import DRIVE, HEADER, OFFERS, WAKE, Outgoing
from .clock import Clock


@dataclass(frozen=True, slots=True)
class Message:
    """One message: the Celery task, the run, the operation, the attempt of a step, and when to deliver it."""

    number: int
    task: str
    run_id: str
    op_id: str
    attempt: int
    due_at: int
    #: The signature of an application's own Celery task; None for a task of this library.
    adopted: Any = None
    #: Whether steps of the run may be offered.
    has_offers: bool = False

    @property
    def what(self) -> str:
        """What the message asks for.  It is the same each time a workflow runs."""
        return f"{self.task} {self.op_id}".strip()


#: Returns the messages to deliver in place of one message: none, one or more.
Deliver = Callable[[Message], list[Message]]


class MemoryBroker:
    """Keeps the messages of an engine in memory.  They survive the engine's process, as in a broker."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._messages: list[Message] = []
        self._kept: dict[str, int] = {}
        self.sent = 0
        self.deliver: Deliver = lambda message: [message]
        self.check_alive: Callable[[], None] = lambda: None

    # For the dispatcher

    def send(self, messages: Sequence[Outgoing]) -> bool:
        """Accept signatures and chains.  The second task of a chain is sent when the first has run."""
        self.check_alive()
        for message in messages:
            self.sent += 1
            due_at = self._clock.now + int((message.countdown or 0) * 1_000_000)
            for what in _apart(message.what):
                self._messages += self.deliver(_read(what, self.sent, due_at))
        return True

    def length(self, queue: str) -> int | None:
        """How many messages are due."""
        self.check_alive()
        return self._kept.get(queue, 0) or sum(message.due_at <= self._clock.now for message in self._messages)

    def keep(self, queue: str) -> bool:
        """Keep a message that no worker reads."""
        self._kept[queue] = 1
        return True

    def close(self) -> None:
        """Nothing to close."""

    # For the worker

    def take(self) -> Message | None:
        """Remove and return the next message that is due; None when there is none."""
        due = [message for message in self._messages if message.due_at <= self._clock.now]
        if not due:
            return None
        first = min(due, key=lambda message: (message.due_at, message.number))
        self._messages.remove(first)
        return first

    def next_due_at(self) -> int | None:
        """When the next message is due."""
        return min((message.due_at for message in self._messages), default=None)


def _apart(message: Any) -> Sequence[Any]:
    """The first turns of several runs, which a worker may also take one by one; or the one message."""
    tasks = getattr(message, "tasks", ())
    return tasks if all(each.task == DRIVE for each in tasks) and tasks else (message,)


def _read(message: Any, number: int, due_at: int) -> Message:
    row = getattr(message, "row", None)
    if row is not None:
        return Message(number, row.name, row.run_id, row.op_id, row.attempt, due_at, adopted=message)
    first = message.tasks[0] if hasattr(message, "tasks") else message
    if first.task in (DRIVE, WAKE):
        run_id, op_id = (*first.args, "")[:2]
        return Message(number, first.task, run_id, op_id, 0, due_at)
    address = first.options["headers"][HEADER]
    address_and_due = (address["run"], address["op"], address["attempt"], due_at)
    return Message(number, first.task, *address_and_due, has_offers=bool(address.get(OFFERS)))


def later(message: Message, micros: int) -> Message:
    """The same message, delivered later."""
    return replace(message, due_at=message.due_at + micros)
