"""The end of a child run, as the log of a run has it that awaits the child."""

from __future__ import annotations

from .. import events


def of(ended: events.Event, op_id: str) -> events.Event:
    """
    Return the event for the awaiting run.

    Args:
        ended: The event that ends the child.
        op_id: The call that has started it.
    """
    at = ended.at
    match ended:
        case events.RunCompleted(result=result):
            return events.ChildCompleted(at=at, op_id=op_id, result=result)
        case events.RunFailedEvent(error=error):
            return events.ChildFailed(at=at, op_id=op_id, error=error)
        case events.RunCancelledEvent(reason=reason):
            # Only the workflow's own event, for a call that it gave up, has no reason: a fork tells them apart by it.
            return events.ChildCancelled(at=at, op_id=op_id, reason=reason or "")
        case _:
            raise AssertionError(f"{ended.kind} does not end a run")
