"""Starting and watching runs."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy import event as sa_event
from sqlalchemy.exc import IntegrityError

from . import alarms, codec, duration, events
from .current import current_engine, refuse_in_workflow
from .engine import Engine
from .errors import ConfigurationError, RunCancelled, RunConflict, RunFailed, RunNotFound
from .events import ROOT, Event
from .inspecting import list_hooks, value_of
from .registry import Workflow
from .store import log, requests, runs
from .store.runs import Run as RunRow

R = TypeVar("R")

#: Pauses between two looks at a run whose result is waited for: short first, then sparing the database.
_PAUSES_SECS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


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

    def result(self, timeout: Any = None) -> R:
        """
        Wait for the end, and return what the workflow returned.

        Args:
            timeout: How long to wait, as ``sleep`` takes it; None: as long as it takes.

        Raises:
            RunFailed: The run has failed; ``__cause__`` is the original exception.
            RunCancelled: The run was cancelled.
            TimeoutError: It goes on.
        """
        deadline = None if timeout is None else time.monotonic() + duration.to_micros(timeout) / 1_000_000
        looks = 0
        while not (row := self._row("Run.result")).ended:
            pause = _PAUSES_SECS[min(looks, len(_PAUSES_SECS) - 1)]
            if deadline is not None and time.monotonic() + pause > deadline:
                raise TimeoutError(f"Run {self.id!r} is {row.status} after {timeout}: it goes on; ask again later.")
            time.sleep(pause)
            looks += 1
        return self._outcome(row)  # type: ignore[no-any-return]

    def cancel(self, reason: str | None = None) -> bool:
        """Ask the run to stop: its next await raises CancelledError.  False when it has ended."""
        engine = self._here("Run.cancel")
        with engine.store.begin() as tx:
            row = runs.lock(tx, self.id)
            if row is None:
                raise RunNotFound(self.id)
            if row.ended:
                return False
            now = engine.store.now()
            news = events.RunCancelRequested(at=now, reason=reason)
            log.post(tx, self.id, news, send_at=now + engine.settings.resend_after)
        engine.dispatch.drive(self.id, row.queue, row.priority)
        return True

    def wake_up(self) -> int:
        """End the run's pending sleeps; how many there were."""
        self._row("Run.wake_up")
        return alarms.wake_up(self._here("Run.wake_up"), self.id)

    def events(self) -> list[Event]:
        """The run's log, in order."""
        self._row("Run.events")
        with self._here("Run.events").store.read() as tx:
            return log.read(tx, self.id)

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
            ended = log.outcome(tx, self.id, ROOT)
            known = requests.load(tx, codec.request_ids(value_of(ended) or ""))
        match ended:
            case events.RunCompleted(result=text):
                return codec.decode(text, known)
            case events.RunFailed(error=text):
                summary = codec.error_summary(text)
                failed = RunFailed(self.id, summary.error_type, summary.message, summary.traceback)
                raise failed from codec.decode_error(text, known)
            case events.RunCancelled(reason=reason):
                raise RunCancelled(self.id, reason)
        raise AssertionError(f"run {self.id} is {row.status} and its log has no end")


codec.register("run", Run, lambda run: run.id, lambda run_id: Run(run_id))


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
        SerializationError: An argument that cannot cross, by its path.
        RunConflict: The id or key started another workflow, or one with other arguments.
    """
    refuse_in_workflow("start", "call the workflow and await it, or start it in a step")
    if not isinstance(workflow, Workflow):
        raise TypeError(f"start takes a function decorated with @workflow, not {workflow!r}.")
    engine.check_schema()
    options = options or Options()
    bound = codec.bind(workflow.signature, args, dict(kwargs or {}))
    text = codec.encode_arguments(bound)
    row = _new_row(engine, workflow, codec.digest(bound, workflow.signature), options)
    if options.session is not None:
        return _start_in_session(engine, options.session, row, text)
    try:
        with engine.store.begin() as tx:
            _create(engine, tx, row, text)
    except IntegrityError:
        return _existing(engine, row, options)
    _send(engine, row)
    return Run(row.id, engine)


def _new_row(engine: Engine, workflow: Workflow[..., Any], digest: str, options: Options) -> RunRow:
    now = engine.now()
    return RunRow(
        id=_run_id(options.run_id, now),
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


def _run_id(given: str | None, now: int) -> str:
    """The given id, else one that begins with the time: new rows stand together in the index."""
    if given is None:
        return f"{now // 1000:012x}{secrets.token_hex(10)}"
    if not isinstance(given, str) or not 1 <= len(given) <= 64 or not all("!" <= c <= "~" for c in given):
        raise ValueError(f"run_id {given!r} must be 1 to 64 printable ASCII characters without blanks.")
    return given


def _key(given: str | None) -> str | None:
    if given is not None and (not isinstance(given, str) or not 1 <= len(given) <= 255 or "\0" in given):
        raise ValueError(f"idempotency_key {given!r} must be a str of 1 to 255 characters without NUL.")
    return given


def _not_before(options: Options, now: int) -> int | None:
    if options.countdown is not None and options.eta is not None:
        raise TypeError("Give countdown or eta, not both.")
    if options.countdown is not None:
        return now + duration.to_micros(options.countdown)
    return None if options.eta is None else duration.due_at(options.eta, now)


def _create(engine: Engine, tx: Connection, row: RunRow, args: str) -> None:
    runs.create(tx, row)
    send_at = max(row.created_at, row.not_before or 0) + engine.settings.resend_after
    log.post(tx, row.id, events.RunCreated(at=row.created_at, name=row.name, args=args), send_at=send_at)


def _send(engine: Engine, row: RunRow) -> None:
    engine.dispatch.drive(row.id, row.queue, row.priority, not_before=row.not_before or 0)


def _existing(engine: Engine, row: RunRow, options: Options) -> Run[Any]:
    with engine.store.read() as tx:
        found = runs.find_by_key(tx, row.idempotency_key) if row.idempotency_key is not None else None
        found = found or runs.find(tx, row.id)
    if found is None:
        raise RunNotFound(row.id)
    if (found.name, found.digest) != (row.name, row.digest):
        raise RunConflict(options.idempotency_key or options.run_id or row.id, found.id)
    return Run(found.id, engine)


def _start_in_session(engine: Engine, session: Any, row: RunRow, args: str) -> Run[Any]:
    """Write the run in the caller's transaction; it is driven once that has committed."""
    tx = session.connection()
    theirs, ours = tx.engine.url, engine.store.url
    if (theirs.get_backend_name(), theirs.host, theirs.port, theirs.database) != (
        ours.get_backend_name(),
        ours.host,
        ours.port,
        ours.database,
    ):
        raise ConfigurationError(
            f"The session writes to {theirs.render_as_string()}, the engine's database is"
            f" {ours.render_as_string()}: a run can only start in a transaction of its own database."
        )
    known = runs.find_by_key(tx, row.idempotency_key) if row.idempotency_key else None
    known = known or runs.find(tx, row.id)
    if known is not None:
        if (known.name, known.digest) != (row.name, row.digest):
            raise RunConflict(row.idempotency_key or row.id, known.id)
        return Run(known.id, engine)
    _create(engine, tx, row, args)
    target = session() if callable(session) else session
    sa_event.listen(target, "after_commit", lambda _: _send(engine, row), once=True)
    return Run(row.id, engine)


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else duration.to_datetime(micros)
