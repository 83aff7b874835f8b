"""
Forks a run: starts a new run whose log begins with that of the old one.

``replay/fork_plan.py`` says what the fork begins with, from the log alone.  Here the fork gets an id and tokens of its
own, and is written in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from .. import codec, events, failpoints, registry
from ..engine import Engine
from ..errors import ConfigurationError, ForkRefused, RunNotFound
from ..events import Event
from ..http import Request
from ..registry import Run, Workflow, definitions
from ..replay import ForkPlan, ForkPoint, plan_fork
from ..store import (
    InboxItem,
    RunLimit,
    RunStatus,
    WaitRow,
    event_rows,
    fork_run,
    generations,
    requests,
    run_log,
    runs,
    start_run,
    waits,
)
from ..store import Run as RunRow
from . import child_report, details, fork_hooks, operate, route_again, run_limits
from .new_run import make_row

#: How often a fork is planned anew because the run has gone on meanwhile.
TRIES = 50


class _GoneOn(Exception):
    """Raised when the run has changed since it was read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Origin:
    """The run to fork, as it was read: its row, its whole log, its inbox, and the webhook requests of its arguments."""

    row: RunRow
    log: Sequence[Event]
    inbox: Sequence[InboxItem]
    requests: Mapping[str, Request]

    @property
    def created(self) -> events.RunCreated:
        created = self.log[0]
        assert isinstance(created, events.RunCreated), f"the log of {self.row.id} begins with {created.kind}"
        return created


@dataclass(frozen=True, kw_only=True, slots=True)
class _Written:
    """What the transaction has written, and what is left to send: the waits, and the tokens of the open hooks."""

    row: RunRow
    waits: Sequence[WaitRow]
    tokens: Sequence[str]


def fork(
    engine: Engine,
    run_id: str,
    *,
    from_step: str | None = None,
    from_event: int | None = None,
    reapply_payloads: bool = True,
    once: bool = False,
) -> Run[Any]:
    """
    Fork the last generation of a run; see ``Run.fork``.

    Args:
        once: Refuse a run that was forked before, so that many runs are not forked twice by two commands.

    Raises:
        RunNotFound: There is no run of this id.
        ForkRefused: The run has no such point, or a fork there could not be right.  Nothing is written.
        ConfigurationError: This application does not have the workflow.
        DecryptionError, PayloadMissing: A value of the log cannot be read here.
    """
    for _ in range(TRIES):
        origin, planned = _plan(engine, run_id, from_step, from_event, reapply_payloads)
        row, limits = _new_row(engine, origin, planned)
        event_rows.store_early(engine.store.vault, row.id, [*planned.log, *planned.before, *planned.after])
        try:
            written = engine.store.write(partial(_write, engine, origin, planned, row, limits, once))
        except (_GoneOn, IntegrityError):
            # The run has gone on, or another run has taken a token.
            continue
        failpoints.hit("fork.committed")
        _send(engine, written, limits)
        return Run(row.id, engine)
    raise ForkRefused(run_id, f"it went on while it was read, {TRIES} times in a row.  Try again later")


def plan(
    engine: Engine,
    run_id: str,
    *,
    from_step: str | None = None,
    from_event: int | None = None,
    reapply_payloads: bool = True,
) -> ForkPlan:
    """Return what ``fork`` would do, and write nothing.  What only its transaction finds out may still refuse it."""
    return _plan(engine, run_id, from_step, from_event, reapply_payloads)[1]


def was_forked(engine: Engine, run_id: str) -> bool:
    """Return whether a run has forks."""
    with engine.store.read() as tx:
        return bool(fork_run.forks_of(tx, [run_id], 1))


def _plan(
    engine: Engine, run_id: str, from_step: str | None, from_event: int | None, reapply_payloads: bool
) -> tuple[_Origin, ForkPlan]:
    if from_step is not None and from_event is not None:
        raise TypeError("Give from_step or from_event, not both.")
    engine.check_schema()
    origin = _read(engine, run_id)
    _workflow(origin.row)
    point = _point(origin, from_step, from_event, reapply_payloads)
    return origin, plan_fork(origin.row.id, origin.log, [item.event for item in origin.inbox], point)


def _read(engine: Engine, run_id: str) -> _Origin:
    """Read the last generation of the run, with the large values of its log."""
    with engine.store.read() as tx:
        row = generations.latest(tx, run_id)
        if row is None:
            raise RunNotFound(run_id)
        log = event_rows.load_large_values(tx, row.id, run_log.read(tx, row.id, upto=row.seq) if row.seq else [])
        items = run_log.read_inbox(tx, row.id, limit=None)
        arrived = event_rows.load_large_values(tx, row.id, [item.event for item in items])
        text = log[0].args if log and isinstance(log[0], events.RunCreated) else ""
        loaded = requests.load(tx, codec.request_ids(text))
    if row.status == RunStatus.PENDING or not log:
        raise ForkRefused(row.id, "it has not begun, so there is nothing to fork.  Start a run with the same arguments")
    inbox = [replace(item, event=event) for item, event in zip(items, arrived, strict=True)]
    return _Origin(row=row, log=log, inbox=inbox, requests=loaded)


def _workflow(row: RunRow) -> Workflow[..., Any]:
    workflow = registry.workflows.get(row.name)
    if workflow is None:
        raise ConfigurationError(
            f"Run {row.id!r} is a run of the workflow {row.name!r}, which this application does not have: add its"
            " module to the Celery app's include or imports, or name the application with --app."
        )
    return workflow


def _point(origin: _Origin, from_step: str | None, from_event: int | None, reapply_payloads: bool) -> ForkPoint:
    """Return where to fork; without a step and an event, at the step that has failed."""
    failed = None
    if from_step is None and from_event is None:
        failed = _failed_step(origin)
    return ForkPoint(from_step, from_event, failed, _semantics, reapply_payloads)


def _semantics(name: str) -> str:
    """Return the semantics of a step.  One that this process does not know may be of any."""
    step = registry.steps.get(name)
    return definitions.AT_MOST_ONCE if step is None else step.semantics


def _failed_step(origin: _Origin) -> str | None:
    """
    Return the call of the step that has failed the run; None if its own code has.

    Raises:
        ForkRefused: The run has not failed, a child run has failed it, or the step must not run once more.
    """
    run_id, log = origin.row.id, origin.log
    ended = next((event for event in log if isinstance(event, events.RunFailedEvent)), None)
    if ended is None:
        raise ForkRefused(
            run_id, f"it is {origin.row.status}, and has not failed at a step: say where with from_step or from_event"
        )
    summary = codec.error_summary(ended.error)
    noted = details.failed_step(summary.traceback)
    calls = {event.op_id: event.name for event in log if isinstance(event, events.StepCreated)}
    failures = [event for event in log if isinstance(event, events.StepFailedEvent | events.ChildFailed)]
    failed = next((each for each in failures if noted and (each.op_id, calls.get(each.op_id)) == noted), None)
    last = failures[-1] if failures else None
    if isinstance(last, events.ChildFailed) and summary.error_type.endswith("RunFailed"):
        child = next(
            event.run_id for event in log if isinstance(event, events.ChildCreated) and event.op_id == last.op_id
        )
        raise ForkRefused(
            run_id,
            f"it has failed because its child run {child} has.  Correct the child's mistake, and fork from a step"
            " before the child was called: then the child starts anew",
        )
    if failed is not None and noted is not None and _semantics(noted[1]) == definitions.AT_MOST_ONCE:
        raise ForkRefused(
            run_id,
            f"its step {noted[1]} ({failed.op_id}) has failed and is at_most_once, so it must not run a second time by"
            f" itself.  If it may, name it: from_step={failed.op_id!r}",
        )
    return None if failed is None else failed.op_id


def _new_row(engine: Engine, origin: _Origin, plan: ForkPlan) -> tuple[RunRow, list[RunLimit]]:
    """Return the row of the fork, and the limits that it waits for."""
    row, now, text, workflow = origin.row, engine.now(), origin.created.args, _workflow(origin.row)
    bound = codec.decode_call(text, origin.requests, workflow.signature)
    limits = run_limits.of_call(workflow, text, origin.requests)
    if limits:
        run_limits.declare(engine, workflow.limits)
    has_begun = bool(plan.log)
    fork = make_row(
        engine,
        row.name,
        run_id=start_run.new_run_id(now),
        digest=codec.digest(bound.arguments, workflow.signature),
        now=now,
        queue=row.queue,
        priority=row.priority,
        trace_context=runs.trace_context(engine.store.vault, row.id, row.trace_context),
        scheduled_for=row.scheduled_for,
        forked_from=row.id,
        # Its steps see the start that its workflow sees, which is that of the log.
        started_at=row.started_at if has_begun else None,
        python_version=row.python_version if has_begun else None,
    )
    return replace(fork, seq=len(plan.log), last_at=plan.log[-1].at if has_begun else now), limits


def _write(
    engine: Engine, origin: _Origin, plan: ForkPlan, row: RunRow, limits: Sequence[RunLimit], once: bool, tx: Connection
) -> _Written:
    """Write the fork.  Raises _GoneOn when the run is not what was read, and ForkRefused."""
    locked = runs.lock(tx, origin.row.id)
    if locked is None or (locked.turn, locked.status) != (origin.row.turn, origin.row.status):
        raise _GoneOn
    if [item.id for item in run_log.read_inbox(tx, row.forked_from or "", limit=None)] != [i.id for i in origin.inbox]:
        raise _GoneOn
    if once and (forks := fork_run.forks_of(tx, [locked.id])):
        raise ForkRefused(locked.id, f"it was forked before: run {forks[-1].id} is {forks[-1].status}")
    now = engine.store.now()
    tokens = {hook.op_id: fork_hooks.token_of(tx, locked, hook) for hook in plan.hooks}
    created = _created(origin, row.id, {hook.token: tokens[hook.op_id] for hook in plan.hooks})

    def own(found: Sequence[Event]) -> Iterator[Event]:
        """The events as the fork has them: with its tokens."""
        for event in found:
            if isinstance(event, events.HookCreated) and event.op_id in tokens:
                yield replace(event, token=tokens[event.op_id])
            else:
                yield created if isinstance(event, events.RunCreated) else event

    forked = events.RunForked(at=now, run_id=locked.id, until=plan.until, step=plan.step)
    ends = [end for made in plan.children if (end := _end_of_child(tx, locked.id, made)) is not None]
    inbox = [*own(plan.before), forked, *plan.after, *ends]
    fork_run.create(tx, row, list(own(plan.log)), inbox, engine.dispatch.plan(now), limits)

    own_tokens = fork_hooks.open_all(tx, locked, row.id, created, plan, tokens, now)

    new_waits = [(each.op_id, now + max(0, each.due_at - plan.until_at)) for each in plan.waits]
    planned = [(op_id, due_at, engine.dispatch.plan_at(tx, now, due_at)) for op_id, due_at in new_waits]
    waits.create(
        tx, [{"run_id": row.id, "op_id": op_id, "due_at": due_at} | times.values() for op_id, due_at, times in planned]
    )
    to_send = [
        WaitRow(row.id, op_id, due_at, row.queue, row.priority, is_deferred=times.is_deferred)
        for op_id, due_at, times in planned
    ]
    return _Written(row=row, waits=to_send, tokens=own_tokens)


def _created(origin: _Origin, fork_id: str, tokens: Mapping[str, str]) -> events.RunCreated:
    """
    Return the event that creates the fork.

    Args:
        tokens: The tokens of the fork's hooks, by those of the run.
    """
    created, run_id = origin.created, origin.row.id
    before = created.renamed or {}
    renamed = {new: before.get(old, old) for old, new in {run_id: fork_id, **tokens}.items() if new != old}
    handed_over = tuple(
        {**each, "token": tokens.get(str(each["token"]), each["token"])} for each in created.handed_over
    )
    return replace(created, seed=created.seed or run_id, renamed={**before, **renamed}, handed_over=handed_over)


def _end_of_child(tx: Connection, run_id: str, made: events.ChildCreated) -> Event | None:
    """Return the end of a child run, for the fork's inbox; None if it goes on and reports its end to the fork."""
    # Its end waits for this lock, and finds the fork then.
    locked = runs.lock(tx, made.run_id)
    while locked is not None and locked.status == RunStatus.CONTINUED:
        latest = generations.latest(tx, locked.id)
        locked = None if latest is None else runs.lock(tx, latest.id)
    if locked is None:
        raise ForkRefused(run_id, f"its child run {made.run_id} was deleted, and its result is not in the log")
    ended = run_log.outcome(tx, locked.id, events.ROOT) if locked.ended else None
    return None if ended is None else child_report.of(ended, made.op_id)


def _send(engine: Engine, written: _Written, limits: Sequence[RunLimit]) -> None:
    """Send what the fork needs.  The sweep finds what cannot be sent now."""
    if limits:
        run_limits.admit(engine, [each.key for each in limits])
    else:
        engine.send_turns(written.row)
    to_send = [row for row in written.waits if not row.is_deferred]
    unsent = [*to_send[engine.dispatch.send_wakes(to_send) :], *(row for row in written.waits if row.is_deferred)]
    if engine.on_due is not None:
        for row in unsent:
            engine.on_due(row.due_at)
    if written.tokens:
        route_again.hooks_opened(engine, written.tokens)


def retry(engine: Engine, run_id: str) -> Run[Any] | None:
    """
    Let a run that has failed or is blocked go on; see ``Run.retry``.

    Raises ForkRefused when a failed run cannot be forked.
    """
    if operate.retry(engine, run_id):
        return Run(run_id, engine)
    with engine.store.read() as tx:
        row = generations.latest(tx, run_id)
        if row is None or row.status != RunStatus.FAILED:
            return None
        forks = fork_run.forks_of(tx, [row.id])
    if not forks or forks[-1].status == RunStatus.CANCELLED:
        return fork(engine, run_id, once=not forks)
    # A second call does not do twice what the first one has started.
    return retry(engine, forks[-1].id) or Run(forks[-1].id, engine)
