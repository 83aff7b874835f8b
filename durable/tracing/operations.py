"""The operations of a run that have begun and not ended, as its log shows them: what their spans are made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from .. import events
from ..events import ROOT, Event, Phase

#: How many payloads of one hook are remembered; as many events as a span has by default.
MOST_RECEIVED = 128

#: Events that create an operation which has no span.
_WITHOUT_SPAN = (events.MarkerRecorded, events.HookConflicted)


@dataclass(slots=True)
class OpenOperation:
    """
    What an operation's span needs of its beginning.

    Attributes:
        kind: The event that has created it.
        name: The name of its step, its hook or its workflow; of a wait, ``sleep`` or ``timer``.
        at: When it began.
        received: For a hook: when payloads came, each with the id of its webhook request if it is one.
    """

    kind: type[Event]
    name: str
    at: int
    received: list[tuple[int, str | None]] = field(default_factory=list)

    @classmethod
    def of(cls, created: Event) -> OpenOperation:
        """Return the operation that an event has created."""
        if isinstance(created, events.WaitCreated):
            name = created.digest.partition(":")[0]
        else:
            name = str(getattr(created, "name", created.kind))
        return cls(type(created), name, created.at)


class EndedOperation(NamedTuple):
    """An event that ends an operation or the run, and the operation; None when its beginning is not known here."""

    operation: OpenOperation | None
    ended: Event
    op_id: str


class OpenOperations:
    """The open operations of one run.  It goes with the run's kept replay, and is as old as that."""

    def __init__(self) -> None:
        self._open: dict[str, OpenOperation] = {}

    def note(self, log: Iterable[Event]) -> list[EndedOperation]:
        """Follow the next events of the log, and return what ends with them."""
        ended: list[EndedOperation] = []
        for event in log:
            if event.phase is Phase.ENDED:
                if event.op_id == ROOT:
                    # Nothing records that the end of a run closes its hooks.
                    closed = [op_id for op_id, each in self._open.items() if each.kind is events.HookCreated]
                    ended += [EndedOperation(self._open.pop(op_id), event, op_id) for op_id in closed]
                ended.append(EndedOperation(self._open.pop(event.op_id, None), event, event.op_id))
            elif event.phase is Phase.CREATED and event.op_id != ROOT:
                if not isinstance(event, _WITHOUT_SPAN):
                    self._open[event.op_id] = OpenOperation.of(event)
            elif isinstance(event, events.HookReceived) and event.op_id in self._open:
                received = self._open[event.op_id].received
                if len(received) < MOST_RECEIVED:
                    received.append((event.at, event.request_id))
        return ended
