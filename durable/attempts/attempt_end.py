"""The event that ends an attempt."""

from __future__ import annotations

from dataclasses import dataclass

from .. import codec, events
from ..store import Claim, ClaimedAttempt


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptEnd:
    """
    What the log says of an attempt that ends, whatever its outcome.

    Attributes:
        at: When it ended.
        worker: The process that ran it, as ``host:pid``.
        responded: Ids of the webhook requests that it answered.
    """

    at: int
    op_id: str
    attempt: int
    started_at: int
    worker: str
    responded: tuple[str, ...] = ()

    @classmethod
    def of(cls, held: Claim | ClaimedAttempt, *, at: int, worker: str, responded: tuple[str, ...] = ()) -> AttemptEnd:
        """Return the end of the attempt that *held* claims."""
        return cls(
            at=at,
            op_id=held.op_id,
            attempt=held.attempt,
            started_at=held.claimed_at,
            worker=worker,
            responded=responded,
        )

    def completed(self, result: str) -> events.StepCompleted:
        """Return the event of an attempt that returned *result*, which is encoded."""
        return events.StepCompleted(
            at=self.at,
            op_id=self.op_id,
            attempt=self.attempt,
            started_at=self.started_at,
            worker=self.worker,
            responded=self.responded,
            result=result,
        )

    def failed(self, error: BaseException) -> events.StepFailedEvent:
        """Return the event of a failure that no other attempt follows."""
        return events.StepFailedEvent(
            at=self.at,
            op_id=self.op_id,
            attempt=self.attempt,
            started_at=self.started_at,
            worker=self.worker,
            responded=self.responded,
            error=codec.encode_error(error),
        )

    def retrying(self, error: BaseException, due_at: int) -> events.StepRetrying:
        """Return the event of a failure that another attempt follows at *due_at*."""
        return events.StepRetrying(
            at=self.at,
            op_id=self.op_id,
            attempt=self.attempt,
            started_at=self.started_at,
            worker=self.worker,
            responded=self.responded,
            error=codec.encode_error(error),
            due_at=due_at,
        )


def without_retry(retrying: events.StepRetrying) -> events.StepFailedEvent:
    """Return the same failure as one that no other attempt follows."""
    return events.StepFailedEvent(
        at=retrying.at,
        op_id=retrying.op_id,
        attempt=retrying.attempt,
        started_at=retrying.started_at,
        worker=retrying.worker,
        responded=retrying.responded,
        error=retrying.error,
    )
