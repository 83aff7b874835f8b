"""The attempt that runs in this context: what the author's function sees of it, and may do in its name."""

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
from ..engine import Engine, Limit, identify
from ..errors import AttemptLost, PayloadMissing, SerializationError
from ..http import Response
from ..registry import Step
from ..sandbox import log_records
from ..store import REFERENCE, Claim, claims, is_unavailable, reason, requests, run_log
from ..store import attributes as stored_attributes
from .cancellation import Watch
from .outcome import route
from .timeout import limit, timed_out
from .transaction import StepTransaction

P = ParamSpec("P")
T = TypeVar("T")

log = log_records.get("durable.steps")


def _shielded(method: Callable[P, T]) -> Callable[P, T]:
    """A method that the author's function calls, and that the deadline does not interrupt."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        attempt: Any = args[0]
        with nullcontext() if attempt.limit is None else attempt.limit.shielded():
            return method(*args, **kwargs)

    return call


@dataclass(kw_only=True)
class RunningAttempt:
    """The attempt that runs in this context: what ``get_step_metadata`` and ``respond_with`` see."""

    engine: Engine
    held: Claim
    watch: Watch
    metadata: StepMetadata
    workflow_metadata: WorkflowMetadata
    limit: Limit | None
    timeout: int | None
    transaction: StepTransaction | None
    responded: list[str] = field(default_factory=list)
    #: What the attempt failed with.
    error: BaseException | None = None
    #: Whether the author's function was called.
    has_begun: bool = False

    @_shielded
    def respond(self, request_id: str, response: Response) -> bool:
        """Answer a webhook request: first one wins, and only while this attempt is the current one."""
        holder = self._answer_at_once(request_id, response)
        if holder is None:
            with self._writing() as tx:
                if not self._is_current(tx):
                    return False
                holder = requests.answer(tx, request_id, response, self.engine.store.now())
        if holder is None:
            return False
        self.responded.append(request_id)

        def tell() -> None:
            failpoints.hit("response.recorded")
            self.engine.notify(holder, request_id)

        self._after_commit(tell)
        return True

    def _answer_at_once(self, request_id: str, response: Response) -> str | None:
        """The holder to tell; None, and nothing is written, where one statement cannot do it."""
        if self._open is not None:
            return None
        return requests.commit_answer(self.engine.store, self.held, request_id, response)

    @_shielded
    def heartbeat(self, details: object) -> None:
        """Keep *details*, and let the attempt go on for its step's timeout from now; AttemptLost."""
        text = codec.encode(details, "details")
        extended = self.timeout if self.limit is not None and not self.limit.notified else None
        try:
            with self._beating() as tx:
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
        """The session whose writes are committed with the step's result."""
        if self.transaction is None:
            raise RuntimeError(
                f'step_session() was called in {self.held.name}, whose semantics is not "transactional":'
                ' write @step(semantics="transactional").'
            )
        return self.transaction.session()

    def ending(self) -> dict[str, Any]:
        """What every event that ends the attempt says."""
        return {
            "at": self.engine.now(),
            "op_id": self.held.op_id,
            "attempt": self.held.attempt,
            "started_at": self.held.claimed_at,
            "worker": identify().place,
            "responded": tuple(self.responded),
        }

    @_shielded
    def set_attributes(self, change: attributes.Changes) -> None:
        """Post a change of the run's attributes, while this attempt is the current one, and have it written now."""
        held = self.held
        with self._writing() as tx:
            attributes.check(stored_attributes.read_ahead(tx, held.run_id), change)
            if not change or not self._is_current(tx):
                return
            now = self.engine.store.now()
            news = events.AttributesSet(at=now, op_id=held.op_id, attributes=dict(change))
            run_log.post(tx, held.run_id, news, self.engine.dispatch.plan(now))
            queue, priority = route(tx, held.run_id)

        def tell() -> None:
            failpoints.hit("attributes.recorded")
            self.engine.dispatch.drive(held.run_id, queue, priority)

        self._after_commit(tell)

    def within_limit(self, body: Callable[[], T]) -> T:
        """
        Call what runs the author's function; StepTimeout when it ends because its time is up.

        A function that catches what it is told by, and returns in time, has returned.
        """
        if self.limit is None:
            return body()
        try:
            return self.limit.run(body)
        except (SoftTimeLimitExceeded, asyncio.CancelledError) as error:
            if not self.limit.notified:
                raise
            raise timed_out(self.held, self.timeout) from error

    def flush(self) -> None:
        """Have the database look at all that the step's session wrote."""
        if self.transaction is not None:
            self.transaction.flush()

    def roll_back(self) -> None:
        """Nothing that the step's session wrote stays."""
        if self.transaction is not None:
            self.transaction.close()

    @property
    def _open(self) -> Connection | None:
        """The connection of the transaction that the attempt shares with its outcome, if that has begun."""
        return None if self.transaction is None else self.transaction.tx

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction: that of the step's session where it is open, so that neither waits for the other."""
        if self._open is not None:
            yield self._open
            return
        with self.engine.store.begin() as tx:
            yield tx

    @contextmanager
    def _beating(self) -> Iterator[Connection]:
        """One that is seen at once; only on SQLite, where a second writer has to wait, that of the session."""
        if self._open is not None and self.engine.store.dialect == "sqlite":
            yield self._open
            return
        with self.engine.store.begin() as tx:
            yield tx

    def _is_current(self, tx: Connection) -> bool:
        # What goes into the session's transaction is committed only with the outcome, under the claim.
        return tx is self._open or claims.is_held(tx, self.held)

    def _after_commit(self, act: Callable[[], object]) -> None:
        if self.transaction is not None and self._open is not None:
            self.transaction.after_commit(act)
        else:
            act()


def describe(engine: Engine, step: Step[..., Any], held: Claim) -> RunningAttempt:
    """The attempt of a claim."""
    watch, deadline = Watch(engine, held), limit(engine, step, held)

    def asks() -> bool:
        with nullcontext() if deadline is None else deadline.shielded():
            return watch.is_given_up()

    return RunningAttempt(
        engine=engine,
        held=held,
        watch=watch,
        limit=deadline,
        timeout=step.timeout,
        transaction=StepTransaction(engine) if held.semantics == "transactional" else None,
        metadata=StepMetadata(
            run_id=held.run_id,
            step_id=held.op_id,
            name=held.name,
            attempt=held.attempt,
            started_at=duration.to_datetime(held.started_at),
            idempotency_key=f"{held.run_id}:{held.op_id}",
            heartbeat=_details(engine, held),
            is_cancelled=asks,
        ),
        workflow_metadata=WorkflowMetadata(
            run_id=held.run_id,
            name=held.run_name,
            started_at=duration.to_datetime(held.run_started_at),
            public_url=engine.settings.public_url,
        ),
    )


def _details(engine: Engine, held: Claim) -> Any:
    """What the last heartbeat said; None where this process cannot read it, which costs the step no attempt."""
    if held.heartbeat is None:
        return None
    try:
        with engine.store.read() if held.heartbeat.startswith(REFERENCE) else nullcontext() as tx:
            text = held.heartbeat if tx is None else engine.store.vault.fetch(tx, held.run_id, held.heartbeat)
        return codec.decode(text or "null")
    except (PayloadMissing, SerializationError) as error:
        log.warning("Step %s of run %s: its last heartbeat cannot be read here: %s", held.name, held.run_id, error)
        return None
