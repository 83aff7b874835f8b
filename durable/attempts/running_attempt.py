"""The running attempt as the step's function sees it: metadata, heartbeat, session, answers, attributes."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from .. import attributes, codec, duration, events, failpoints
from ..context import StepMetadata, WorkflowMetadata
from ..engine import Buffer, Engine, Limit, count_emitted, identify, warn_of_dropped
from ..errors import AttemptLost, PayloadMissing, SerializationError
from ..http import Response
from ..registry import Step, StreamOptions
from ..sandbox import log_records
from ..store import (
    REFERENCE,
    Claim,
    SendTimes,
    claims,
    emit_items,
    fork_run,
    is_unavailable,
    pushed_answers,
    reason,
    requests,
    retry_until_available,
    run_log,
    runs,
)
from ..store import attributes as stored_attributes
from .attempt_end import AttemptEnd
from .cancellation import CancellationCheck
from .timeout import limit, timed_out
from .transaction import StepTransaction

P = ParamSpec("P")
T = TypeVar("T")

log = log_records.get("durable.steps")


def _shielded(method: Callable[P, T]) -> Callable[P, T]:
    """Let the deadline not interrupt a method that the step's function calls."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        attempt: Any = args[0]
        with nullcontext() if attempt.limit is None else attempt.limit.shielded():
            return method(*args, **kwargs)

    return call


@dataclass(kw_only=True)
class RunningAttempt:
    """
    The attempt that runs in this context: ``get_step_metadata``, ``respond_with`` and others call it.

    Attributes:
        responded: Ids of the webhook requests that the attempt has answered.
        error: What the attempt failed with.
        has_begun: Whether the step's function was called.
        closes_streams: Whether a stream ends with the step.
    """

    engine: Engine
    held: Claim
    cancellation: CancellationCheck
    metadata: StepMetadata
    workflow_metadata: WorkflowMetadata
    limit: Limit | None
    timeout: int | None
    transaction: StepTransaction | None
    responded: list[str] = field(default_factory=list)
    error: BaseException | None = None
    has_begun: bool = False
    closes_streams: bool = False
    _emitted: Buffer | None = None

    # What the step's function calls

    @_shielded
    def respond(self, request_id: str, response: Response) -> bool:
        """Answer a webhook request.  Return False if it has an answer, or this attempt is not the current one."""
        store = self.engine.store
        holder = requests.commit_answer(store, self.held, request_id, response) if self._open is None else None
        if holder is None:
            with self._writing() as tx:
                if not self._is_current(tx):
                    return False
                holder = requests.answer(tx, request_id, response, store.now())
        if holder is None:
            return False
        self.responded.append(request_id)

        def notify() -> None:
            failpoints.hit("response.recorded")
            pushed = pushed_answers.write(store.vault, self.held.run_id, request_id, response) if holder else None
            self.engine.notify(holder, *([] if pushed is None else [pushed]), request_id)

        self._after_commit(notify)
        return True

    @_shielded
    def heartbeat(self, details: object) -> None:
        """
        Store *details*, and start the step's timeout anew.

        Raises:
            AttemptLost: The attempt was given up.
        """
        text = codec.encode(details, "details")
        extended = self.timeout if self.limit is not None and not self.limit.notified else None
        # SQLite has one writer at a time, which is the step's open transaction.  Elsewhere a transaction of its own
        # shows the heartbeat to others at once.
        own = self._open if self.engine.store.dialect == "sqlite" else None
        try:
            with self.engine.store.begin() if own is None else nullcontext(own) as tx:
                is_current = claims.heartbeat(tx, self.held, text, self.engine.store.sql_now, extended)
        except SQLAlchemyError as error:
            if not is_unavailable(error):
                raise
            log.warning(
                "The database cannot be used now (%s): a heartbeat of %s is lost.", reason(error), self.held.name
            )
            return
        if not is_current:
            raise AttemptLost(self.held.name, self.held.attempt)
        if self.limit is not None and extended is not None:
            self.limit.extend(extended)

    @_shielded
    def session(self) -> Session:
        """Return the session whose writes are committed with the step's result."""
        if self.transaction is None:
            raise RuntimeError(
                f'step_session() was called in {self.held.name}, whose semantics is not "transactional":'
                ' write @step(semantics="transactional").'
            )
        return self.transaction.session()

    @_shielded
    def set_attributes(self, change: attributes.Changes) -> None:
        """Change the run's attributes, if this attempt is the current one, and wake the run to record that."""
        held = self.held
        with self._writing() as tx:
            attributes.check(stored_attributes.read_ahead(tx, held.run_id), change)
            if not change or not self._is_current(tx):
                return
            now = self.engine.store.now()
            changed = events.AttributesSet(at=now, op_id=held.op_id, attributes=dict(change))
            run_log.post(tx, held.run_id, changed, self.engine.dispatch.plan(now))
            run = runs.find(tx, held.run_id)

        def wake() -> None:
            failpoints.hit("attributes.recorded")
            if run is not None:
                self.engine.send_turns(run)

        self._after_commit(wake)

    @_shielded
    def publish(self, name: str, value: str) -> None:
        """
        Publish an encoded value, if this attempt is the current one.

        Readers find it in the run's inbox, so it needs no turn of its own: the next turn takes it in, or one that the
        sweep sends.
        """
        held = self.held
        with self._writing() as tx:
            if not self._is_current(tx):
                return
            now = self.engine.store.now()
            published = events.ValuePublished(at=now, op_id=held.op_id, name=name, value=value)
            run_log.post(tx, held.run_id, published, SendTimes(now + self.engine.settings.resend_after, None))
        self._after_commit(lambda: self.engine.notifier.notify_subscribers(held.run_id))

    @_shielded
    def emit(self, name: str, item: str | None, options: StreamOptions) -> None:
        """Add an encoded item to a stream, or close it with None.  In a transactional step, with its transaction."""
        self.closes_streams |= options.until == "step"
        if self.transaction is None:
            self.engine.stream_writer.put(self.held, name, item, options)
            return
        if self._emitted is None:
            self._emitted = Buffer(self.held)
        if self._emitted.add(name, item, options, self.engine.store.now()):
            self._write_emitted()

    # What the attempt itself calls

    def finish_streams(self) -> None:
        """Write what is left of the items that the step has emitted."""
        if self.transaction is None:
            self.engine.stream_writer.finish(self.held)
        else:
            self._write_emitted()

    def _write_emitted(self) -> None:
        items = [] if self._emitted is None else self._emitted.take()
        if not items:
            return
        if self.transaction is not None:
            self.transaction.begin()
        with self._writing() as tx:
            written = emit_items.write(tx, self.held, items)
        warn_of_dropped(self.held, written)
        key = written.key
        if key is not None:
            self._after_commit(lambda: self.engine.notifier.notify_subscribers(key))
            self._after_commit(lambda: count_emitted(self.engine.measures, "step", items, written.dropped))

    def within_limit(self, call: Callable[[], T]) -> T:
        """
        Call what runs the step's function.

        A function that catches the interruption and returns in time has returned.

        Raises:
            StepTimeout: The function ended because its time was up.
        """
        if self.limit is None:
            return call()
        try:
            return self.limit.run(call)
        except (SoftTimeLimitExceeded, asyncio.CancelledError) as error:
            if not self.limit.notified:
                raise
            raise timed_out(self.held, self.timeout) from error

    def ending(self) -> AttemptEnd:
        """Return the end of this attempt, as of now, for the event of its outcome."""
        return AttemptEnd.of(self.held, at=self.engine.now(), worker=identify().place, responded=tuple(self.responded))

    def flush(self) -> None:
        """Send all that the step's session wrote to the database."""
        if self.transaction is not None:
            self.transaction.flush()

    def roll_back(self) -> None:
        """Roll back what the step's session wrote."""
        if self.transaction is not None:
            self.transaction.close()

    @property
    def _open(self) -> Connection | None:
        """The connection of the step's transaction, if that has begun."""
        return None if self.transaction is None else self.transaction.tx

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Give a transaction to write in: the step's where it has begun, so that neither waits for the other."""
        if self._open is not None:
            yield self._open
            return
        with self.engine.store.begin() as tx:
            yield tx

    def _is_current(self, tx: Connection) -> bool:
        # The step's transaction is committed only with the outcome, which checks the claim.
        return tx is self._open or claims.is_held(tx, self.held)

    def _after_commit(self, act: Callable[[], object]) -> None:
        if self.transaction is not None and self._open is not None:
            self.transaction.after_commit(act)
        else:
            act()


def describe(engine: Engine, step: Step[..., Any], held: Claim) -> RunningAttempt:
    """
    Return the running attempt of a claim.

    Raises:
        DecryptionError: This process lacks a key.
    """
    check, deadline = CancellationCheck(engine, held), limit(engine, step, held)

    def is_given_up() -> bool:
        with nullcontext() if deadline is None else deadline.shielded():
            return check.is_given_up()

    return RunningAttempt(
        engine=engine,
        held=held,
        cancellation=check,
        limit=deadline,
        timeout=step.timeout,
        transaction=StepTransaction(engine) if held.semantics == "transactional" else None,
        metadata=StepMetadata(
            run_id=held.run_id,
            step_id=held.op_id,
            name=held.name,
            attempt=held.attempt,
            started_at=duration.to_datetime(held.started_at),
            idempotency_key=f"{_first_caller(engine, held)}:{held.op_id}",
            heartbeat=_last_heartbeat(engine, held),
            is_cancelled=is_given_up,
        ),
        workflow_metadata=WorkflowMetadata(
            run_id=held.run_id,
            name=held.run_name,
            started_at=duration.to_datetime(held.run_started_at),
            public_url=engine.settings.public_url,
            scheduled_for=None if held.scheduled_for is None else duration.to_datetime(held.scheduled_for),
        ),
    )


def _first_caller(engine: Engine, held: Claim) -> str:
    """Return the run whose id the key of the call has: for a fork the run that has made the call first."""
    if held.forked_from is None:
        return held.run_id

    def find() -> str:
        with engine.store.read() as tx:
            return fork_run.first_caller(tx, held.run_id, held.op_id)

    return retry_until_available(find)


def _last_heartbeat(engine: Engine, held: Claim) -> Any:
    """Return the details of the last heartbeat; None when they are gone or cannot be decoded, so that the step runs."""
    stored = held.heartbeat
    if stored is None:
        return None

    def fetch() -> str | None:
        with engine.store.read() as tx:
            return engine.store.vault.fetch(tx, held.run_id, stored)

    try:
        return codec.decode((retry_until_available(fetch) if stored.startswith(REFERENCE) else stored) or "null")
    except (PayloadMissing, SerializationError) as error:
        log.warning("Step %s of run %s: its last heartbeat cannot be read here: %s", held.name, held.run_id, error)
        return None
