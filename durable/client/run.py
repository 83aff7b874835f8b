"""A run as its starter sees it: watched, awaited, cancelled."""

from __future__ import annotations

import math
import time
from datetime import datetime
from typing import Any, Generic, TypeVar, overload

from sqlalchemy import Connection

from .. import codec, duration, events, failpoints
from ..current import current_engine
from ..engine import Engine
from ..errors import RunCancelled, RunFailed, RunNotFound
from ..events import ROOT, Event
from ..sandbox import refuse_in_workflow
from ..store import Run as RunRow
from ..store import attributes, requests, run_log, runs
from . import operate
from .describe import list_hooks, value_of

R = TypeVar("R")

_MISSING: Any = object()


class Run(Generic[R]):
    """
    A run, by its id.  Making one does no I/O; its properties read the database each time.

    Every property and method but ``id`` raises RunNotFound when there is no such run, except ``exists``.
    """

    def __init__(self, run_id: str, engine: Engine | None = None) -> None:
        self.id = run_id
        self._engine = engine

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def exists(self) -> bool:
        """Whether there is such a run."""
        return self._find("Run.exists") is not None

    @property
    def status(self) -> str:
        """``pending running completed failed cancelled blocked``; a waiting run is ``running``."""
        return self._row("Run.status").status

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self._row("Run.name").name

    @property
    def created_at(self) -> datetime:
        """When the run was committed."""
        return duration.to_datetime(self._row("Run.created_at").created_at)

    @property
    def started_at(self) -> datetime | None:
        """When its first turn began."""
        return _moment(self._row("Run.started_at").started_at)

    @property
    def completed_at(self) -> datetime | None:
        """When it ended."""
        return _moment(self._row("Run.completed_at").completed_at)

    @property
    def attributes(self) -> dict[str, str]:
        """What the run has set with ``set_attributes``, by name; it stays when the run has ended."""
        self._row("Run.attributes")
        with self._here("Run.attributes").store.read() as tx:
            return attributes.read(tx, self.id)

    def result(self, timeout: Any = None) -> R:
        """
        Wait for the end, and return what the workflow returned.

        Args:
            timeout: How long to wait, as ``sleep`` takes it; None: as long as it takes.

        Raises:
            RunFailed: The run has failed; ``__cause__`` is the original exception.
            RunCancelled: The run was cancelled; ``__cause__`` is what its cleanup raised, if it did.
            TimeoutError: It goes on.
        """
        row = self._row("Run.result")
        return self._outcome(row if row.ended else self._ended(timeout))  # type: ignore[no-any-return]

    def _ended(self, timeout: Any) -> RunRow:
        """The row once the run has ended."""
        until = math.inf if timeout is None else time.monotonic() + duration.to_micros(timeout) / 1_000_000
        with self._here("Run.result").ends.expected(self.id) as end:
            while not (row := self._row("Run.result")).ended:
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"Run {self.id!r} is {row.status} after {timeout}: it goes on; ask again later.")
                end.wait(left)
        return row

    def cancel(self, reason: str | None = None) -> bool:
        """Ask the run to stop: its next await raises CancelledError.  False when it has ended."""
        engine = self._here("Run.cancel")
        row = engine.store.write(lambda tx: self._post_cancel(engine, tx, reason))
        if row.ended:
            return False
        failpoints.hit("cancel.recorded")
        engine.dispatch.drive(self.id, row.queue, row.priority)
        return True

    def _post_cancel(self, engine: Engine, tx: Connection, reason: str | None) -> RunRow:
        row = runs.hold(tx, self.id)
        if row is None:
            raise RunNotFound(self.id)
        if not row.ended:
            # A turn that ends the run in one statement does not see news that come at that moment.
            runs.outdate(tx, self.id)
            now = engine.store.now()
            news = events.RunCancelRequested(at=now, reason=reason)
            run_log.post(tx, self.id, news, engine.dispatch.plan(now))
        return row

    @overload
    def resolve(self, *, result: object, step: str | None = None) -> str: ...
    @overload
    def resolve(self, *, fail: str, step: str | None = None) -> str: ...
    def resolve(self, *, result: object = _MISSING, fail: str | None = None, step: str | None = None) -> str:
        """
        Say what became of a step in doubt, one with ``semantics="at_most_once"``; the run goes on then.

        Args:
            result: What the step came to; or *fail*: why it failed.  One of the two.
            step: The step's id, where several are in doubt.

        Returns:
            The step's id.

        Raises:
            NotInDoubt: Nothing is in doubt, or several steps are and none is named.
            SerializationError: The result does not fit the step's return annotation.
        """
        if (result is _MISSING) == (fail is None):
            raise TypeError("Run.resolve takes either result=… or fail='why'.")
        return operate.resolve(self._here("Run.resolve"), self.id, step, result=result, fail=fail)

    def wake_up(self) -> int:
        """End the run's pending sleeps; how many there were."""
        self._row("Run.wake_up")
        return operate.wake_up(self._here("Run.wake_up"), self.id)

    def events(
        self,
        *,
        after: int = 0,
        before: int = 2**62,
        limit: int | None = None,
        newest_first: bool = False,
        payloads: bool = True,
    ) -> list[Event]:
        """
        The run's log, in order; page by page with the ``seq`` of the last event seen.

        Args:
            after, before: Only events whose ``seq`` is between these.
            limit: How many at most.
            newest_first: From the end.
            payloads: False leaves arguments, results, errors and payloads out: they are empty text then.
        """
        self._row("Run.events")
        with self._here("Run.events").store.read() as tx:
            return run_log.page(
                tx, self.id, after=after, before=before, limit=limit, newest_first=newest_first, values=payloads
            )

    def hooks(self) -> list[dict[str, Any]]:
        """The run's open hooks in the order of their creation, with ``url`` for webhooks."""
        self._row("Run.hooks")
        return list_hooks(self._here("Run.hooks"), run_id=self.id, limit=1000)

    def _here(self, call: str) -> Engine:
        refuse_in_workflow(call)
        engine: Engine = self._engine or current_engine()
        engine.check_schema()
        return engine

    def _find(self, call: str) -> RunRow | None:
        with self._here(call).store.read() as tx:
            return runs.find(tx, self.id)

    def _row(self, call: str) -> RunRow:
        row = self._find(call)
        if row is None:
            raise RunNotFound(self.id)
        return row

    def _outcome(self, row: RunRow) -> Any:
        with self._here("Run.result").store.read() as tx:
            ended = run_log.outcome(tx, self.id, ROOT)
            known = requests.load(tx, codec.request_ids(value_of(ended) or ""))
        match ended:
            case events.RunCompleted(result=text):
                return codec.decode(text, known)
            case events.RunFailed(error=text):
                summary = codec.error_summary(text)
                failed = RunFailed(self.id, summary.error_type, summary.message, summary.traceback)
                raise failed from codec.decode_error(text, known)
            case events.RunCancelled(reason=reason, error=text):
                raise RunCancelled(self.id, reason) from (codec.decode_error(text, known) if text else None)
        raise AssertionError(f"run {self.id} is {row.status} and its log has no end")


codec.register("run", Run, lambda run: run.id, lambda run_id: Run(run_id))


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else duration.to_datetime(micros)
