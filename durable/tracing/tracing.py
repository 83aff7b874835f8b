"""``Tracing``: what the rest of the library calls.  This class makes no spans; it carries context variables only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from ..store import Claim, Run
from .batch import Batch
from .carried import Carried, ContextVariables, parse
from .operations import EndedOperation


class AttemptTrace:
    """The span of a running attempt; this one is none.  In a block of it the step's function runs."""

    def __enter__(self) -> AttemptTrace:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def fail(self, error: BaseException) -> None:
        """Record what the attempt failed with."""


class RequestTrace:
    """The span of a webhook request; this one is none."""

    def answered(self, status: int, at: int) -> None:
        """End the span: the sender gets an answer with this status."""


_NO_ATTEMPT_SPAN = AttemptTrace()
_NO_REQUEST_SPAN = RequestTrace()


class Tracing:
    """
    The tracing of one engine.

    Attributes:
        variables: The context variables that cross into steps.
        batch: What is still to be emitted.
    """

    def __init__(self, variables: ContextVariables) -> None:
        self.variables = variables
        self.batch = Batch()

    @property
    def is_on(self) -> bool:
        """Whether spans are made."""
        return False

    @contextmanager
    def start(self, workflow: str, run_id: str) -> Iterator[str | None]:
        """Trace the start of a run.  Yield what the run carries, for its row."""
        yield Carried(variables=self.variables.capture()).to_text()

    def for_child(self, parent: Run, carried: str | None) -> str | None:
        """Return what a child run carries; *carried* is what its parent does, decrypted."""
        return Carried(variables=parse(carried).variables).to_text()

    def attempt(self, held: Claim) -> AttemptTrace:
        """Start the span of an attempt of a step; a block of it is part of the run's trace.  Never raises."""
        return _NO_ATTEMPT_SPAN

    def within(self, run_id: str, carried: str | None) -> AbstractContextManager[None]:
        """Make the run's span the parent of what the block traces: the messages that it sends."""
        return nullcontext()

    def headers(self, run_id: str, carried: str | None) -> dict[str, str]:
        """Return what a message in the run's trace has for OpenTelemetry's instrumentation of Celery."""
        return {}

    def drops(self, run_id: str, carried: str | None) -> bool:
        """Whether a run has no spans, because its start was not sampled.  Never raises."""
        return True

    def emit(self, run: Run, carried: str | None, ended: Sequence[EndedOperation]) -> None:
        """Emit the spans of what has ended with a turn of the run.  Never raises."""

    def request(self, run_id: str, op_id: str, request_id: str, carried: str | None, received_at: int) -> RequestTrace:
        """Trace a webhook request that was recorded, until it is answered.  Never raises."""
        return _NO_REQUEST_SPAN

    def resumed(self, run_id: str, op_id: str, carried: str | None, began_at: int, committed_at: int) -> None:
        """Emit the span of a ``resume_hook`` that has committed its payload.  Never raises."""

    def quiet(self) -> AbstractContextManager[None]:
        """Keep OpenTelemetry's instrumentations from making spans in the block."""
        return nullcontext()


def quiet(make: Callable[[], Tracing]) -> AbstractContextManager[None]:
    """
    Keep OpenTelemetry's instrumentation of SQLAlchemy from making spans in the block: of durable's own statements.

    The tracing is made only where that instrumentation is: a process that only reads runs need not import
    OpenTelemetry.
    """
    return make().quiet() if "opentelemetry.instrumentation.sqlalchemy" in sys.modules else nullcontext()
