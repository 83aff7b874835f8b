"""
Starts many runs of one workflow: one transaction, and messages one after the other, for each ``BATCH`` of them.

All arguments are checked before the first run is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from .. import attributes, codec, failpoints, registry
from ..engine import Engine
from ..errors import RunConflict
from ..registry import Run, Workflow
from ..sandbox import log_records, refuse_in_workflow
from ..store import OPTION, DriveRow, RunLimit, runs, start_run
from ..store import Run as RunRow
from . import run_limits
from .new_run import created_event
from .start import Options, new_row, plan_first_turn, same_run

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: How many runs one transaction starts.
BATCH = 500

#: How often a batch is tried when other processes start runs with its keys at the same time.
_TRIES = 5

#: Options of ``with_options`` that are for one run only.
_OF_ONE = ("run_id", "idempotency_key", "session")

log = log_records.get("durable.starting")


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to start, with its encoded arguments."""

    row: RunRow
    text: str
    limits: Sequence[RunLimit] = ()


def start_many(
    engine: Engine,
    workflow: Workflow[..., Any] | registry.StartOptions[..., Any],
    args: Iterable[Any],
    keys: Iterable[str] | None = None,
    session: Any = None,
) -> list[Run[Any]]:
    """
    Start a run of *workflow* for each item of *args*, and return the runs in that order.

    Returns once all of them are committed.  A run whose key was used before is not started again.

    Args:
        workflow: The workflow, or ``workflow.with_options(...)`` with options for all runs.
        args: For each run a tuple of its arguments, or a dict of them by name.
        keys: An idempotency key for each run.
        session: Starts them in the transaction of this SQLAlchemy session.

    Raises:
        TypeError, ValueError, SerializationError, ConfigurationError: As ``start``.  No run was started.
        RunConflict: A key has started another workflow, or one with other arguments.  No run was started, unless
            another process has used the key during this call.
    """
    refuse_in_workflow("start_many", "call the workflow for each item and await them, or start them in a step")
    target, options = _target(workflow)
    engine.check_schema()
    engine.dispatch.check_queue_of_turn(options.queue or target.options.get("queue"))
    attributes.check({}, options.attributes or {})
    given = attributes.merged({}, options.attributes or {})
    _refuse_debounced(target)
    new = _checked(engine, target, options, args, keys)
    if session is not None:
        # It imports SQLAlchemy's ORM, which an application without sessions does without.
        from . import sessions

        return _start_in_session(engine, sessions.of(session), target, new, given)

    run_limits.declare(engine, target.limits)
    # Conflicts are found before the first batch is written.
    for batch in _batches(new):
        with engine.store.read() as tx:
            _existing(engine, tx, batch)
    started: list[Run[Any]] = []
    for batch in _batches(new):
        for each in batch:
            engine.store.vault.store_early(each.row.id, [each.text])
        found, planned = _commit(engine, batch, given)
        started += found
        _send(engine, planned)
    return started


def _target(workflow: Any) -> tuple[Workflow[..., Any], Options]:
    """Return the workflow, and the options for all runs."""
    chosen: Mapping[str, Any] = {}
    if isinstance(workflow, registry.StartOptions):
        workflow, chosen = workflow.workflow, workflow.options
    if not isinstance(workflow, Workflow):
        raise TypeError(f"start_many takes a function decorated with @workflow, not {workflow!r}.")
    of_one = [name for name in _OF_ONE if name in chosen]
    if of_one:
        raise TypeError(f"start_many: the option {of_one[0]} is for one run.  Pass keys=[...] and session=... instead.")
    return workflow, Options(**chosen)


def _refuse_debounced(workflow: Workflow[..., Any]) -> None:
    if any(limit.wait is not None for limit in workflow.limits):
        raise TypeError(
            f"start_many: workflow {workflow.name} is debounced, so that starts of one key become one run.  Start the"
            f" last one of each key with {workflow.__name__}.start(...)."
        )


def _checked(
    engine: Engine,
    workflow: Workflow[..., Any],
    options: Options,
    args: Iterable[Any],
    keys: Iterable[str] | None,
) -> list[NewRun]:
    """Check all arguments and keys, and return the runs to start."""
    calls = list(args)
    given_keys = [None] * len(calls) if keys is None else list(keys)
    if len(given_keys) != len(calls):
        raise ValueError(f"start_many: there are {len(calls)} calls and {len(given_keys)} keys.  Pass a key for each.")
    now = engine.now()
    new: list[NewRun] = []
    by_key: dict[str, RunRow] = {}
    for number, (call, key) in enumerate(zip(calls, given_keys, strict=True)):
        if not isinstance(call, tuple | list | dict):
            raise TypeError(
                f"start_many: args[{number}] is {call!r}.  Pass a tuple of arguments for each run, such as"
                f" ({call!r},), or a dict of them by name."
            )
        positional, by_name = ((), call) if isinstance(call, dict) else (tuple(call), {})
        try:
            bound = codec.bind(workflow.signature, positional, by_name)
        except TypeError as error:
            raise TypeError(f"start_many: args[{number}] does not fit {workflow.name}: {error}") from None
        text = codec.encode_arguments(bound, f"args[{number}]")
        digest = codec.digest(bound, workflow.signature)
        row = new_row(engine, workflow, digest, replace(options, idempotency_key=key), now)
        if key is not None and by_key.setdefault(key, row).digest != digest:
            raise RunConflict(key, by_key[key].id)
        found = run_limits.of_start(workflow, bound)
        with engine.tracing.start(row.name, row.id) as trace_context:
            new.append(NewRun(replace(row, trace_context=trace_context), text, found))
    return new


def _batches(new: Sequence[NewRun]) -> Iterable[Sequence[NewRun]]:
    return (new[first : first + BATCH] for first in range(0, len(new), BATCH))


def _existing(engine: Engine, tx: Connection, batch: Sequence[NewRun]) -> dict[str, Run[Any]]:
    """Return the runs that the keys have started already, by key.  Raises RunConflict."""
    by_key = {each.row.idempotency_key: each.row for each in batch if each.row.idempotency_key is not None}
    found = {str(row.idempotency_key): row for row in runs.find_by_keys(tx, list(by_key))}
    return {key: same_run(engine, by_key[key], row) for key, row in found.items()}


def _write(
    engine: Engine, tx: Connection, batch: Sequence[NewRun], given: Mapping[str, str]
) -> tuple[list[Run[Any]], list[start_run.OneOfMany]]:
    """Write a batch; return its runs, and those that are new with the plan of their first messages."""
    existing = _existing(engine, tx, batch)
    new: list[start_run.OneOfMany] = []
    started = []
    for each in batch:
        key = each.row.idempotency_key
        run = None if key is None else existing.get(key)
        if run is None:
            sending = plan_first_turn(engine, tx, each.row, [])
            created = created_event(each.row, each.text)
            new.append(start_run.OneOfMany(each.row, created, sending, each.limits))
            run = Run(each.row.id, engine)
            if key is not None:
                existing[key] = run
        started.append(run)
    start_run.create_all(tx, new, given)
    return started, new


def _commit(
    engine: Engine, batch: Sequence[NewRun], given: Mapping[str, str]
) -> tuple[list[Run[Any]], list[start_run.OneOfMany]]:
    """Write a batch in a transaction of its own."""
    for _ in range(_TRIES - 1):
        try:
            return engine.store.write(lambda tx: _write(engine, tx, batch, given))
        except IntegrityError:
            # Another process has used one of the keys meanwhile.  Its run is visible now.
            continue
    return engine.store.write(lambda tx: _write(engine, tx, batch, given))


def _send(engine: Engine, planned: Sequence[start_run.OneOfMany]) -> None:
    """Send the first turns.  The sweep sends what is deferred, or cannot be sent now."""
    failpoints.hit("start.committed")
    rows = [
        DriveRow(each.run.id, each.run.queue, each.run.priority, trace_context=each.run.trace_context)
        for each in planned
        if not each.sending.is_deferred and not each.limits
    ]
    not_before = planned[0].run.not_before if planned else None
    if rows and not_before is not None:
        engine.dispatch.send_turns(rows, not_before=not_before)
    elif rows:
        engine.first_turns.add_all(rows)
    run_limits.admit(engine, {limit.key for each in planned for limit in each.limits})


def _start_in_session(
    engine: Engine, session: Session, workflow: Workflow[..., Any], new: Sequence[NewRun], given: Mapping[str, str]
) -> list[Run[Any]]:
    """Write the runs in the caller's transaction.  Their first turns are sent once that has committed."""
    from . import sessions

    tx = sessions.connection(session, engine.store.url).execution_options(**{OPTION: engine.store.vault})
    run_limits.declare(engine, workflow.limits, tx)
    started: list[Run[Any]] = []
    planned: list[start_run.OneOfMany] = []
    for batch in _batches(new):
        found, sending = _write_in_session(engine, tx, batch, given)
        started += found
        planned += sending

    sessions.when_over(session, _sender(engine, planned))
    return started


def _write_in_session(
    engine: Engine, tx: Connection, batch: Sequence[NewRun], given: Mapping[str, str]
) -> tuple[list[Run[Any]], list[start_run.OneOfMany]]:
    # SQLite has one writer: once this transaction writes, no other process takes a key.  Its driver has no savepoints.
    nested = nullcontext if tx.dialect.name == "sqlite" else tx.begin_nested
    for last in (*[False] * (_TRIES - 1), True):
        try:
            with nested():
                return _write(engine, tx, batch, given)
        except IntegrityError:
            if last or tx.dialect.name == "sqlite":
                raise
    raise AssertionError("the last try returns or raises")


def _sender(engine: Engine, planned: Sequence[start_run.OneOfMany]) -> Callable[[], None]:
    """Return a function that sends the first turns of those runs which are committed."""

    def send() -> None:
        for first in range(0, len(planned), BATCH):
            batch = planned[first : first + BATCH]
            try:
                with engine.store.read() as tx:
                    # The transaction, or a savepoint in it, may have been rolled back.
                    committed = runs.names_of(tx, [each.run.id for each in batch])
            except SQLAlchemyError as error:
                # An exception here would look to the caller as if its commit had failed.
                log.warning("%d runs are left to the sweep: %s.", len(planned) - first, type(error).__name__)
                return
            if found := [each for each in batch if each.run.id in committed]:
                _send(engine, found)

    return send
