"""Starting runs: a row and its first news in one transaction, which may be the caller's."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from .. import codec, duration, events, failpoints, registry
from ..engine import Engine
from ..errors import ConfigurationError, RunConflict, RunNotFound
from ..registry import Run, Workflow
from ..sandbox import log_records, refuse_in_workflow
from ..store import OPTION, Sending, is_large, requests, runs, start_run, unreachable
from ..store import Run as RunRow
from . import sessions
from .describe import creation, value_of

log = log_records.get("durable.starting")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How a run is started, in Celery's words."""

    run_id: str | None = None
    idempotency_key: str | None = None
    queue: str | None = None
    priority: int | None = None
    countdown: Any = None
    eta: Any = None
    session: Any = None


def start(
    engine: Engine,
    workflow: Workflow[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Options | None = None,
) -> Run[Any]:
    """
    Commit a new run and send its first turn.

    Returns once the run is committed; a broker that is down only delays it.  The run of an id or key
    that was used before is returned as it is, and nothing new starts.

    Raises:
        TypeError: Not a workflow, or arguments that do not fit its signature.
        ValueError: An id or a key that no database keeps as it is.
        SerializationError: An argument that cannot cross, by its path.
        RunConflict: The id or key started another workflow, or one with other arguments.
        ConfigurationError: The session writes to another database than the engine's, or the Celery app has no such
            queue.
    """
    refuse_in_workflow("start", "call the workflow and await it, or start it in a step")
    if not isinstance(workflow, Workflow):
        raise TypeError(f"start takes a function decorated with @workflow, not {workflow!r}.")
    engine.check_schema()
    options = options or Options()
    bound = codec.bind(workflow.signature, args, dict(kwargs or {}))
    text = codec.encode_arguments(bound)
    row = _new_row(engine, workflow, codec.digest(bound, workflow.signature), options)
    engine.dispatch.check_queue_of_turn(row.queue)
    if options.session is not None:
        return _start_in_session(engine, sessions.of(options.session), row, text)
    engine.store.vault.stow_ahead(row.id, [text])
    sending: list[Sending] = []
    try:
        engine.store.write(lambda tx: _create(engine, tx, row, text, sending), once=_is_plain(row, text))
    except SQLAlchemyError as error:
        known = _known_after(engine, row, error)
        if known is None:
            raise
        if isinstance(error, IntegrityError) or known.id != row.id:
            return known
    _send(engine, row, sending[-1])
    return Run(row.id, engine)


def _new_row(engine: Engine, workflow: Workflow[..., Any], digest: str, options: Options) -> RunRow:
    now = engine.now()
    return RunRow(
        id=_given_id(options.run_id) or new_run_id(now),
        name=workflow.name,
        status="pending",
        turn=0,
        seq=0,
        last_at=now,
        queue=options.queue or workflow.options.get("queue"),
        priority=options.priority if options.priority is not None else workflow.options.get("priority"),
        digest=digest,
        idempotency_key=_key(options.idempotency_key),
        code_version=engine.code_version(workflow),
        python_version=None,
        parent_run_id=None,
        parent_op_id=None,
        not_before=_not_before(options, now),
        blocked=None,
        blocked_version=None,
        created_at=now,
        started_at=None,
        completed_at=None,
    )


def new_run_id(now: int) -> str:
    """One that begins with the time: new rows stand together in the index."""
    return f"{now // 1000:012x}{secrets.token_hex(10)}"


def _given_id(given: str | None) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or not 1 <= len(given) <= 64 or not all("!" <= c <= "~" for c in given):
        raise ValueError(f"run_id {given!r} must be 1 to 64 printable ASCII characters without blanks.")
    return given


def _key(given: str | None) -> str | None:
    """The given key; one that some database would cut or take for another is refused."""
    if given is None:
        return None
    if not isinstance(given, str) or not 1 <= len(given) <= 255 or any(map(_is_unkept, given)):
        raise ValueError(f"idempotency_key {given!r} must be a str of 1 to 255 characters, without NUL.")
    if given.endswith(" "):
        raise ValueError(f"idempotency_key {given!r} ends with a blank, which MySQL does not look at: strip() it.")
    return given


def _is_unkept(character: str) -> bool:
    return character == "\0" or "\ud800" <= character <= "\udfff"


def _not_before(options: Options, now: int) -> int | None:
    if options.countdown is not None and options.eta is not None:
        raise TypeError("Give countdown or eta, not both.")
    if options.countdown is not None:
        delay = duration.to_micros(options.countdown, what="countdown")
        return duration.due_at(timedelta(microseconds=delay), now)
    return None if options.eta is None else duration.due_at(options.eta, now)


def _create(engine: Engine, tx: Connection, row: RunRow, args: str, planned: list[Sending]) -> None:
    """Insert the run and its first news; *planned* is told of its message before, for a commit may be lost sight of."""
    sending = engine.dispatch.plan_at(tx, row.created_at, row.not_before or 0)
    if sending.is_deferred:
        # A turn before its time would do nothing: it is sent when it is due.
        sending = Sending(row.not_before or 0, None)
    planned.append(sending)
    start_run.create(tx, row, events.RunCreated(at=row.created_at, name=row.name, args=args), sending)


def _is_plain(row: RunRow, args: str) -> bool:
    """Whether the run and its first news are all there is to write."""
    return row.not_before is None and not is_large(args) and not codec.request_ids(args)


def _send(engine: Engine, row: RunRow, sending: Sending) -> None:
    failpoints.hit("start.committed")
    if sending.is_deferred:
        return
    engine.wake(row, not_before=row.not_before or 0)


# The run that is there already


def _known_after(engine: Engine, row: RunRow, error: SQLAlchemyError) -> Run[Any] | None:
    """
    The run that is there though its row could not be written, None when the error stands.

    The id or key was used before; or the commit was applied, and only its acknowledgement was lost.
    """
    if not isinstance(error, IntegrityError) and not unreachable(error):
        return None
    try:
        with engine.store.read() as tx:
            known = _known(tx, row)
    except SQLAlchemyError:
        return None
    return None if known is None else _same(engine, row, known)


def _known(tx: Connection, row: RunRow) -> RunRow | None:
    """The run that the id or the key started."""
    by_key = None if row.idempotency_key is None else runs.find_by_key(tx, row.idempotency_key)
    return by_key or runs.find(tx, row.id)


def _same(engine: Engine, row: RunRow, known: RunRow) -> Run[Any]:
    if known.name != row.name or not engine.store.vault.is_digest(known.digest, row.digest, known.id):
        raise RunConflict(row.idempotency_key or row.id, known.id)
    return Run(known.id, engine)


# In the caller's transaction


def _start_in_session(engine: Engine, session: Session, row: RunRow, args: str) -> Run[Any]:
    """Write the run in the caller's transaction; it is driven once that has committed."""
    tx = sessions.connection(session, engine.store.url).execution_options(**{OPTION: engine.store.vault})
    known = _known(tx, row)
    if known is not None:
        return _same(engine, row, known)
    planned: list[Sending] = []
    try:
        # A refused statement ends a PostgreSQL transaction, the caller's work with it; elsewhere only itself.
        with tx.begin_nested() if tx.dialect.name == "postgresql" else nullcontext():
            _create(engine, tx, row, args, planned)
    except IntegrityError as error:
        # Somebody else committed the id or key meanwhile.
        found = _known_after(engine, row, error)
        if found is None:
            raise
        return found
    sessions.when_over(session, lambda: _send_committed(engine, row, planned[-1]))
    return Run(row.id, engine)


def _send_committed(engine: Engine, row: RunRow, sending: Sending) -> None:
    """Send the first turn if the run is there: the transaction, or a savepoint in it, may have been rolled back."""
    try:
        with engine.store.read() as tx:
            committed = runs.find(tx, row.id) is not None
    except SQLAlchemyError as error:
        # Raising here would tell the caller that its commit failed.
        log.warning("Run %s is left to the sweep: the database does not answer (%s).", row.id, type(error).__name__)
        return
    if committed:
        _send(engine, row, sending)


def start_like(engine: Engine, run_id: str, options: Options) -> Run[Any]:
    """
    Start a run of the same workflow with the same arguments; the other run stays as it is.

    Its queue and priority are the other run's, unless *options* name others.

    Raises:
        RunNotFound: There is no run of this id.
        ConfigurationError: This application does not have the workflow.
        SerializationError: The workflow no longer takes these arguments, or a class of theirs is gone.
    """
    engine.check_schema()
    with engine.store.read() as tx:
        row = runs.find(tx, run_id)
        text = value_of(creation(tx, run_id)) if row is not None else None
        known = requests.load(tx, codec.request_ids(text or ""))
    if row is None or text is None:
        raise RunNotFound(run_id)
    workflow = registry.workflows.get(row.name)
    if workflow is None:
        raise ConfigurationError(
            f"Run {run_id!r} is of the workflow {row.name!r}, which this application does not have: add its module"
            " to the Celery app's include or imports, or name the application with --app."
        )
    args, kwargs = codec.decode_arguments(text, known, workflow.signature)
    priority = row.priority if options.priority is None else options.priority
    return start(engine, workflow, args, kwargs, replace(options, queue=options.queue or row.queue, priority=priority))
