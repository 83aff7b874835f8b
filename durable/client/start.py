"""Starts runs: the run's row and its first inbox item in one transaction, which may be the caller's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from .. import attributes, codec, duration, events, failpoints, registry
from ..engine import Engine
from ..errors import ConfigurationError, RunConflict, RunNotFound
from ..registry import Run, Workflow
from ..sandbox import log_records, refuse_in_workflow
from ..store import (
    OPTION,
    DriveRow,
    SendTimes,
    is_large,
    is_unavailable,
    requests,
    run_log,
    runs,
    start_run,
)
from ..store import Run as RunRow
from . import run_limits
from .describe import creation, value_of
from .new_run import PreparedRun, created_event, make_row

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = log_records.get("durable.starting")

#: Commits a run together with its first turn, and sends what follows; False when it has written nothing.
FirstTurn = Callable[[Engine, RunRow, events.RunCreated], bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How a run is started; queue, priority, countdown and eta are as in Celery; None of *attributes* are left out."""

    run_id: str | None = None
    idempotency_key: str | None = None
    queue: str | None = None
    priority: int | None = None
    countdown: Any = None
    eta: Any = None
    session: Any = None
    attributes: Mapping[str, str | None] | None = None


def start(
    engine: Engine,
    workflow: Workflow[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Options | None = None,
    first_turn: FirstTurn | None = None,
) -> Run[Any]:
    """
    Commit a new run and send its first turn.

    Returns once the run is committed.  When the broker is down, the run starts later.  If the id or key was used
    before, returns that run, and starts none.

    Args:
        first_turn: Takes the first turn in this process, where the settings say so and it can.

    Raises:
        TypeError: Not a workflow, arguments that do not fit its signature, an attribute that is no str, or an option
            that a debounced workflow does not take.
        Exception: What the key function of a limit raises.
        ValueError: An id, a key or an attribute that some database does not store as it is.
        SerializationError: An argument that has no JSON form; the error has its path.
        RunConflict: The id or key started another workflow, or one with other arguments.
        ConfigurationError: The session writes to another database than the engine's, or the Celery app does not have
            the queue.
    """
    refuse_in_workflow("start", "call the workflow and await it, or start it in a step")
    if not isinstance(workflow, Workflow):
        raise TypeError(f"start takes a function decorated with @workflow, not {workflow!r}.")
    engine.check_schema()
    options = options or Options()
    bound = codec.bind(workflow.signature, args, dict(kwargs or {}))
    prepared = prepare(engine, workflow, bound, options)
    limits = run_limits.of_start(workflow, bound)
    with engine.tracing.start(prepared.row.name, prepared.row.id) as trace_context:
        row = prepared.row if trace_context is None else replace(prepared.row, trace_context=trace_context)
        prepared = replace(prepared, row=row, limits=limits)
        if options.session is not None:
            # It imports SQLAlchemy's ORM, which an application without sessions does without.
            from . import sessions

            return _start_in_session(engine, sessions.of(options.session), workflow, prepared)
        run_limits.declare(engine, workflow.limits)
        return _commit(engine, prepared, first_turn)


def prepare(
    engine: Engine, workflow: Workflow[..., Any], bound: Mapping[str, Any], options: Options | None = None
) -> PreparedRun:
    """Check all that ``start`` checks but the limits, and return the run without them.  Writes nothing."""
    options = options or Options()
    check_debounce(workflow, options)
    text = codec.encode_arguments(bound)
    row = new_row(engine, workflow, codec.digest(bound, workflow.signature), options, engine.now())
    attributes.check({}, options.attributes or {})
    given = attributes.merged({}, options.attributes or {})
    engine.dispatch.check_queue_of_turn(row.queue)
    return PreparedRun(row=row, args=text, attributes=given)


def check_debounce(workflow: Workflow[..., Any], options: Options) -> None:
    """Raise TypeError for an option that makes no sense where several starts may become one run."""
    limit = next((each for each in workflow.limits if each.wait is not None), None)
    if limit is None:
        return
    given = ("run_id", "idempotency_key", "countdown", "eta")
    name = next((name for name in given if getattr(options, name) is not None), None)
    if name is not None:
        raise TypeError(
            f"Workflow {workflow.name} is debounced ({limit.name}), so a start may become one with others, and takes no"
            f" {name}.  Leave it out."
        )


def _commit(engine: Engine, new: PreparedRun, first_turn: FirstTurn | None) -> Run[Any]:
    """Commit the run in a transaction of its own, and send its first turn."""
    row, text = new.row, new.args
    engine.store.vault.store_early(row.id, [text])
    planned: list[SendTimes] = []
    run_id = row.id
    failure: SQLAlchemyError | None = None
    try:
        if first_turn is not None and _is_plain(new) and first_turn(engine, row, created_event(row, text)):
            return Run(run_id, engine)
        run_id = start_run.commit(
            engine.store,
            row,
            created_event(row, text),
            lambda tx: plan_first_turn(engine, tx, row, planned),
            new.attributes,
            new.limits,
        )
    except SQLAlchemyError as error:
        failure = error
    if failure is not None:
        # Outside of the except block, so that a RunConflict has no database error in its context.
        existing = _existing_after(engine, row, failure)
        if existing is None:
            raise failure
        # The commit may have been applied, and only its acknowledgement was lost.  If the first turn was part of it,
        # the sweep sends what follows.
        if isinstance(failure, IntegrityError) or existing.id != row.id or not planned:
            return existing
    _send(engine, new, planned[-1])
    return Run(run_id, engine)


def _is_plain(new: PreparedRun) -> bool:
    """Return whether the run begins now, and its row and the event that creates it are all there is to write."""
    is_small = not is_large(new.args) and not codec.request_ids(new.args)
    return is_small and not new.attributes and not new.limits and new.row.not_before is None


def new_row(engine: Engine, workflow: Workflow[..., Any], digest: str, options: Options, now: int) -> RunRow:
    """Return the row of a run that is started now.  Raises as ``start``."""
    run_id = options.run_id
    is_id = isinstance(run_id, str) and 1 <= len(run_id) <= 64 and all("!" <= c <= "~" for c in run_id)
    if run_id is not None and not is_id:
        raise ValueError(f"run_id {run_id!r} must be 1 to 64 printable ASCII characters without blanks.")
    not_before = None
    if options.countdown is not None and options.eta is not None:
        raise TypeError("Give countdown or eta, not both.")
    if options.countdown is not None:
        delay = duration.to_micros(options.countdown, what="countdown")
        not_before = duration.due_at(timedelta(microseconds=delay), now)
    elif options.eta is not None:
        not_before = duration.due_at(options.eta, now)
    return make_row(
        engine,
        workflow.name,
        run_id=run_id or start_run.new_run_id(now),
        digest=digest,
        now=now,
        queue=options.queue or workflow.options.get("queue"),
        priority=options.priority if options.priority is not None else workflow.options.get("priority"),
        idempotency_key=_key(options.idempotency_key),
        not_before=not_before,
    )


def _key(given: str | None) -> str | None:
    """Return the given key.  Refuse one that some database would cut, or take for another."""
    if given is None:
        return None
    unstorable = isinstance(given, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in given)
    if not isinstance(given, str) or not 1 <= len(given) <= 255 or unstorable:
        raise ValueError(f"idempotency_key {given!r} must be a str of 1 to 255 characters, without NUL.")
    if given.endswith(" "):
        raise ValueError(f"idempotency_key {given!r} ends with a blank, which MySQL ignores: strip() it.")
    return given


def plan_first_turn(engine: Engine, tx: Connection, row: RunRow, planned: list[SendTimes]) -> SendTimes:
    """Plan the first turn's message.  *planned* gets the plan too, since a commit may be applied though it raises."""
    sending = engine.dispatch.plan_at(tx, row.created_at, row.not_before or 0)
    if sending.is_deferred:
        # A turn before its time would do nothing: it is sent when it is due.
        sending = SendTimes(row.not_before or 0, None)
    planned.append(sending)
    return sending


def _send(engine: Engine, new: PreparedRun, sending: SendTimes) -> None:
    failpoints.hit("start.committed")
    if new.limits:
        run_limits.admit(engine, [each.key for each in new.limits])
    elif not sending.is_deferred:
        row = new.row
        if row.not_before is not None:
            engine.send_turns(row, not_before=row.not_before)
        else:
            engine.first_turns.add(DriveRow(row.id, row.queue, row.priority, trace_context=row.trace_context))


# An id or key that was used before


def _existing_after(engine: Engine, row: RunRow, error: SQLAlchemyError) -> Run[Any] | None:
    """
    Return the run that exists although writing its row has failed; None when the error stands.

    The id or key was used before, or the commit was applied and only its acknowledgement was lost.
    """
    if not isinstance(error, IntegrityError) and not is_unavailable(error):
        return None
    try:
        with engine.store.read() as tx:
            existing = _existing(tx, row)
    except SQLAlchemyError:
        return None
    return None if existing is None else same_run(engine, row, existing)


def _existing(tx: Connection, row: RunRow) -> RunRow | None:
    """Return the row of the run that the id or the key started."""
    by_key = None if row.idempotency_key is None else runs.find_by_key(tx, row.idempotency_key)
    return by_key or runs.find(tx, row.id)


def same_run(engine: Engine, row: RunRow, existing: RunRow) -> Run[Any]:
    """Return the run that the id or key of *row* has started; raise RunConflict if it is another call."""
    if existing.name != row.name or not engine.store.vault.is_digest(existing.digest, row.digest, existing.id):
        raise RunConflict(row.idempotency_key or row.id, existing.id)
    return Run(existing.id, engine)


# In the caller's transaction


def _start_in_session(engine: Engine, session: Session, workflow: Workflow[..., Any], new: PreparedRun) -> Run[Any]:
    """Write the run in the caller's transaction.  Its first turn is sent once that has committed."""
    from . import sessions

    row = new.row
    tx = sessions.connection(session, engine.store.url).execution_options(**{OPTION: engine.store.vault})
    existing = _existing(tx, row)
    if existing is not None:
        return same_run(engine, row, existing)
    run_limits.declare(engine, workflow.limits, tx)
    planned: list[SendTimes] = []
    run_id = row.id

    def send() -> None:
        # The transaction, or a savepoint in it, may have been rolled back.
        try:
            with engine.store.read() as tx:
                is_committed = runs.find(tx, run_id) is not None
        except SQLAlchemyError as error:
            # An exception here would look to the caller as if its commit had failed.
            log.warning("Run %s is left to the sweep: the database does not answer (%s).", row.id, type(error).__name__)
            return
        if is_committed:
            _send(engine, new, planned[-1])

    failure: IntegrityError | None = None
    try:
        # PostgreSQL ends the whole transaction when a statement fails, and the caller's work would be lost with it.
        with tx.begin_nested() if tx.dialect.name == "postgresql" else nullcontext():
            sending = plan_first_turn(engine, tx, row, planned)
            created = created_event(row, new.args)
            run_id = start_run.create(tx, row, created, sending, new.attributes, new.limits)
    except IntegrityError as error:
        failure = error
    if failure is not None:
        # Another process committed the id or key meanwhile.
        found = _existing_after(engine, row, failure)
        if found is None:
            raise failure
        return found
    sessions.when_over(session, send)
    return Run(run_id, engine)


def start_like(engine: Engine, run_id: str, options: Options) -> Run[Any]:
    """
    Start a run of the same workflow, with the same arguments, queue and priority.  The other run stays as it is.

    Args:
        run_id: The run to repeat.
        options: May name another queue or priority.

    Raises:
        RunNotFound: There is no run of this id.
        ConfigurationError: This application does not have the workflow.
        SerializationError: The workflow no longer takes these arguments, or one of their classes is gone.
    """
    engine.check_schema()
    with engine.store.read() as tx:
        row = runs.find(tx, run_id)
        text = value_of(creation(tx, run_id)) if row is not None else None
        loaded = requests.load(tx, codec.request_ids(text or ""))
    if row is None or text is None:
        raise RunNotFound(run_id)
    workflow = registry.workflows.get(row.name)
    if workflow is None:
        raise ConfigurationError(
            f"Run {run_id!r} is a run of the workflow {row.name!r}, which this application does not have: add its"
            " module to the Celery app's include or imports, or name the application with --app."
        )
    args, kwargs = codec.decode_arguments(text, loaded, workflow.signature)
    priority = row.priority if options.priority is None else options.priority
    return start(engine, workflow, args, kwargs, replace(options, queue=options.queue or row.queue, priority=priority))


def called_steps(engine: Engine, run_id: str) -> list[str]:
    """The names of the steps that a run has called, in the order of their first calls: they may have had effects."""
    with engine.store.read() as tx:
        log = run_log.page(tx, run_id, after=0, before=2**62, limit=None, newest_first=False, values=False)
    return list(dict.fromkeys(event.name for event in log if isinstance(event, events.StepCreated)))
