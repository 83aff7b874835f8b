"""
Pause and resume: one run, all runs of a workflow or of a queue, the requests to a receiver.

The database says what is paused.  A pause by name marks the runs that are open, batch by batch, before it returns.
What begins later, a process marks when it comes upon it; each process knows of the pause within ``beat_interval``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection

from .. import context, failpoints, registry
from ..engine import Engine
from ..errors import ConfigurationError, RunNotFound
from ..nearest import did_you_mean
from ..store import Cause, DriveRow, Pause, Run, RunStatus, generations, pause_runs, pauses, received, run_list
from .child_runs import act_below
from .describe import pause_as_json
from .route_again import route_held

#: How many runs, or requests, go on in one second after a pause by name, or after a resume of many runs.
RESUMED_PER_SEC = 100
#: ``list_pauses`` counts the runs of a pause no further.
COUNTED = 10_000

#: The statuses of open runs, in the order in which a run has them.
_OPEN = (RunStatus.PENDING, RunStatus.RUNNING, RunStatus.BLOCKED)
_SECOND = 1_000_000
#: The longest reason, in characters.
LONGEST_REASON = 1_000


# One run


def pause_run(engine: Engine, run_id: str, reason: str | None = None, *, children: bool = False) -> bool:
    """
    Pause a run, or its last generation; with *children* also its open child runs, and theirs.

    Returns:
        False when each run has ended or was paused by itself already.

    Raises:
        RunNotFound: There is no run of this id.
        ValueError: The reason is longer than 1,000 characters.
    """
    _check_reason(reason)
    now = engine.store.now()

    def act(tx: Connection) -> tuple[str, bool]:
        row = _lock(tx, run_id)
        return row.id, not row.ended and bool(pause_runs.pause(tx, [row.id], pauses.OWN_PAUSE, reason, now))

    latest, paused = engine.store.write(act)
    failpoints.hit("pause.recorded")
    if not children:
        return paused
    return (
        bool(act_below(engine, latest, lambda tx, ids: pause_runs.pause(tx, ids, pauses.OWN_PAUSE, reason, now)))
        or paused
    )


def resume_run(engine: Engine, run_id: str, *, children: bool = False) -> bool:
    """
    End a run's own pause, and send what waits.  It stays paused while its workflow or queue is.

    Args:
        children: End the own pauses of its open child runs too, and of theirs; they go on ``RESUMED_PER_SEC`` a second.

    Returns:
        False when none was paused by itself.

    Raises:
        RunNotFound: There is no run of this id.
    """
    now = engine.store.now()

    def act(tx: Connection) -> tuple[str, list[DriveRow] | None]:
        row = _lock(tx, run_id)
        causes = pauses.causes_of(tx, [row.id]).get(row.id, [])
        if not any(each.kind == pauses.OWN for each in causes):
            return row.id, None
        sending = engine.dispatch.plan(now)
        own = (pauses.RESUMING, pauses.OWN_PAUSE)
        return row.id, [drive for cause in own for drive in pause_runs.resume(tx, [row.id], cause, now, sending)]

    latest, drives = engine.store.write(act)
    if drives is not None:
        _send(engine, drives)
    if children and _resume_below(engine, latest, now):
        go_on_with_pauses(engine)
        return True
    return drives is not None


def resume_in_turn(engine: Engine, run_id: str, *, children: bool = False) -> bool:
    """
    End a run's own pause, as one of many: ``go_on_with_pauses`` lets ``RESUMED_PER_SEC`` of them go on.

    Returns:
        False when it was not paused by itself; with *children*, when none of its child runs was either.

    Raises:
        RunNotFound: There is no run of this id.
    """
    now = engine.store.now()

    def act(tx: Connection) -> tuple[str, bool]:
        latest = _lock(tx, run_id).id
        return latest, pauses.resume_in_turn(tx, latest, now)

    latest, resumed = engine.store.write(act)
    return (children and _resume_below(engine, latest, now)) or resumed


def _resume_below(engine: Engine, run_id: str, now: int) -> bool:
    def resume(tx: Connection, ids: Sequence[str]) -> list[str]:
        return [each for each in ids if pauses.resume_in_turn(tx, each, now)]

    return bool(act_below(engine, run_id, resume))


def _lock(tx: Connection, run_id: str) -> Run:
    row = generations.lock_latest(tx, run_id)
    if row is None:
        raise RunNotFound(run_id)
    return row


def _send(engine: Engine, drives: Sequence[DriveRow]) -> None:
    """Send the turns of runs that go on; the sweep sends their steps."""
    failpoints.hit("pause.recorded")
    engine.dispatch.send_turns(drives)
    if engine.on_due is not None:
        engine.on_due(engine.now())


def _check_reason(reason: str | None) -> None:
    if reason is not None and len(reason) > LONGEST_REASON:
        raise ValueError(f"The reason has {len(reason):,} characters: write at most {LONGEST_REASON:,}.")


# A workflow, a queue or a receiver


def pause(engine: Engine, kind: str, name: str, reason: str | None = None) -> bool:
    """
    Pause a workflow, a queue or a receiver.

    When this returns, no turn of a run is committed that was open before, and none of its steps begins.  Runs that
    start later, and steps of other runs that go to a paused queue, stop within ``beat_interval``.

    Args:
        kind: "workflow", "queue" or "receiver".

    Returns:
        False when it was paused already.

    Raises:
        ConfigurationError: There is no such workflow or receiver.
        ValueError: The reason is longer than 1,000 characters.
    """
    _check_reason(reason)
    engine.check_schema()
    _check_name(engine, kind, name)
    now, cause = engine.store.now(), Cause(kind, name)
    again_at = None if kind == pauses.RECEIVER else now + 2 * engine.settings.beat_interval
    begun = engine.store.write(lambda tx: pauses.begin(tx, cause, reason, now, again_at))
    engine.pauses.read(engine.store)
    failpoints.hit("pause.recorded")
    if kind != pauses.RECEIVER:
        _pause_open(engine, cause, reason)
    return begun


def resume(engine: Engine, kind: str, name: str) -> bool:
    """
    Resume a workflow, a queue or a receiver: what waits goes on, ``RESUMED_PER_SEC`` a second.

    Returns:
        False when it was not paused.
    """
    engine.check_schema()
    now = engine.store.now()
    begun = engine.store.write(lambda tx: pauses.begin_resume(tx, Cause(kind, name), now))
    engine.pauses.read(engine.store)
    failpoints.hit("pause.recorded")
    if begun:
        # The first ones here, the others by the sweep.
        go_on_with_pauses(engine)
    return begun


def list_pauses(engine: Engine, limit: int = 1000) -> list[dict[str, Any]]:
    """
    Return what is paused by name as plain JSON: ``kind name paused_at reason runs resuming``.

    Runs that a filter has resumed, and that have not gone on yet, are one of them, with the kind "run" and no name.
    """
    engine.check_schema()
    with engine.store.read() as tx:
        found = pauses.every(tx, limit)
        counts = [pauses.count_runs(tx, each.cause, COUNTED) for each in found]
    return [
        pause_as_json(each) | {"runs": count, "resuming": each.resuming_at is not None}
        for each, count in zip(found, counts, strict=True)
        if count or each.cause != pauses.RESUMING
    ]


def _check_name(engine: Engine, kind: str, name: str) -> None:
    known: Sequence[str] = []
    if kind == pauses.WORKFLOW and name not in registry.workflows:
        with engine.store.read() as tx:
            known = [*registry.workflows, *run_list.names(tx)]
    elif kind == pauses.RECEIVER and name not in context.receivers:
        with engine.store.read() as tx:
            known = [*context.receivers, *received.names(tx)]
    elif kind in pauses.KINDS:
        return
    if name not in known:
        raise ConfigurationError(f"There is no {kind} {name!r}.{did_you_mean(name, set(known))}")


def _pause_open(engine: Engine, cause: Cause, reason: str | None) -> None:
    """Pause the runs that are open, batch by batch."""
    upto = engine.store.now()
    has_default = cause.name == engine.dispatch.find_queue_of_turn(None)
    for status in _OPEN:
        after = (0, "")
        while True:
            with engine.store.read() as tx:
                page = pauses.open_runs(
                    tx,
                    cause,
                    status=status,
                    has_default=has_default,
                    after=after,
                    upto=upto,
                    limit=pause_runs.BATCH,
                )
            if page and _pause_more(engine, [run_id for _, run_id in page], cause, reason) is None:
                return
            if len(page) < pause_runs.BATCH:
                break
            after = page[-1]


def _pause_more(engine: Engine, run_ids: Sequence[str], cause: Cause, reason: str | None = None) -> list[str] | None:
    """Pause runs whose workflow or queue is paused; return those that this has paused, None when it is not any more."""

    def act(tx: Connection) -> list[str] | None:
        if not pauses.is_active(tx, cause):
            return None
        return pause_runs.pause(tx, run_ids, cause, reason, engine.store.now())

    return engine.store.write(act)


# Work that comes upon a pause


def is_held(engine: Engine, run: Run, *, is_cancelled: bool) -> bool:
    """
    Return whether a run has no turn now.  What is in its inbox waits then, without a message.

    Args:
        is_cancelled: A cancel is in its inbox, which no pause holds up.
    """
    if run.ended or is_cancelled:
        return False
    if run.paused_at is not None:
        engine.store.write(lambda tx: pause_runs.park(tx, run.id))
        return True
    if not engine.pauses:
        return False
    causes = engine.pauses.of_run(run.name, engine.dispatch.find_queue_of_turn(run.queue))
    return any([_pause_more(engine, [run.id], cause) for cause in causes])


def hold_step(engine: Engine, step: str, run_id: str, op_id: str, attempt: int) -> bool:
    """Return whether the queue of a step is paused; then the attempt waits, without a message."""
    queue = engine.dispatch.find_queue_of_step(step)
    if queue is None or not engine.pauses.has(pauses.QUEUE, queue):
        return False

    def act(tx: Connection) -> bool:
        if not pauses.is_active(tx, Cause(pauses.QUEUE, queue)):
            return False
        return pause_runs.hold_step(tx, run_id, op_id, attempt, queue, engine.store.now())

    return engine.store.write(act)


# The sweep


def go_on_with_pauses(engine: Engine) -> None:
    """Pause what has begun since a pause without knowing of it, and resume the next batch of what goes on."""
    with engine.store.read() as tx:
        found = pauses.due(tx, engine.now())
    for each in found:
        if each.resuming_at is None:
            _pause_open(engine, each.cause, each.reason)
            engine.store.write(partial(pauses.check_at, pause=each, at=None))
            continue
        resumed, has_more = _resume_batch(engine, each)
        at = engine.now() + _SECOND * resumed // RESUMED_PER_SEC
        end: Callable[[Connection], None] = partial(pauses.remove, pause=each)
        engine.store.write(partial(pauses.check_at, pause=each, at=at) if has_more else end)


def _resume_batch(engine: Engine, each: Pause) -> tuple[int, bool]:
    """Let the next ones go on that a pause holds; return how many at the most, and whether there may be more."""
    if each.kind == pauses.RECEIVER:
        return pause_runs.BATCH, route_held(engine, each.name, pause_runs.BATCH)
    now, steps = engine.store.now(), Cause(pauses.STEPS, each.name)
    with engine.store.read() as tx:
        ids = pauses.runs_of(tx, each.cause, pause_runs.BATCH)
        with_steps = pauses.runs_of(tx, steps, pause_runs.BATCH) if each.kind == pauses.QUEUE else []
    if ids:
        sending = engine.dispatch.plan(now)
        _send(engine, engine.store.write(lambda tx: pause_runs.resume(tx, ids, each.cause, now, sending)))
    if with_steps:
        engine.store.write(lambda tx: pause_runs.resume_steps(tx, with_steps, each.name, now))
    if each.cause == pauses.RESUMING:
        # The row stays until nothing is left, so that small batches do not go on faster.
        return len(ids), bool(ids)
    return pause_runs.BATCH, pause_runs.BATCH in (len(ids), len(with_steps))
