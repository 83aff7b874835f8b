"""
Limits of workflows: the limits of a new run with the keys of its arguments, and the admission of the runs that wait.

A run with limits gets no message before it is admitted.  A process that starts runs, ends one, or sweeps admits what
comes next.  What a crash leaves, the sweep finds.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from .. import codec, events, registry
from ..engine import Engine
from ..errors import WorkflowCodeError
from ..http import Request
from ..registry import FlowLimit, Workflow, definitions
from ..sandbox import log_records, raising_line
from ..store import LimitKey, Run, RunLimit, admit_runs, limits, reason, run_limits

#: The most keys that one sweep checks.
KEYS = 500
#: The most batches of one key that are admitted one after the other; the sweep admits the rest.
_ROUNDS = 100

log = log_records.get("durable.limits")


# The limits of a new run


def of_start(workflow: Workflow[..., object], arguments: Mapping[str, Any]) -> list[RunLimit]:
    """
    Return the limits of a run with these arguments.  This calls the key functions of the author.

    Raises:
        SerializationError: An argument does not fit its annotation.
        TypeError, ValueError: A key is no text, or too long.
        Exception: What a key function raises, with a note.
    """
    if not workflow.limits:
        return []
    call = inspect.BoundArguments(workflow.signature, dict(arguments))
    definitions.fit_arguments(workflow, call)
    found = []
    for limit in workflow.limits:
        try:
            found.append(as_run_limit(limit, registry.key_of(limit, call)))
        except Exception as error:
            error.add_note(f"This is about the key of the limit {limit.name!r} of workflow {workflow.name}.")
            raise
    return found


def of_call(
    workflow: Workflow[..., object] | None, args: str, requests: Mapping[str, Request] | None = None
) -> list[RunLimit]:
    """
    As ``of_start``, for a run that no caller starts: a schedule's, or a child.  It is not debounced.

    Args:
        workflow: None if this process does not have it.  Then the first turn finds the limits.
        args: The encoded arguments.
    """
    if workflow is None or all(limit.wait is not None for limit in workflow.limits):
        return []
    call = codec.decode_call(args, requests or {}, workflow.signature)
    return without_debounce(of_start(workflow, call.arguments))


def as_run_limit(limit: FlowLimit, key: str) -> RunLimit:
    """Return a limit with its key as the store takes it."""
    return RunLimit(LimitKey(limit.name, key), limit.on_conflict, limit.wait, limit.at_most)


def without_debounce(found: Iterable[RunLimit]) -> list[RunLimit]:
    """Return those limits that hold for a run which no other start can change."""
    return [each for each in found if each.wait is None]


def declare(engine: Engine, declared: Collection[FlowLimit], tx: Connection | None = None) -> None:
    """
    Record the numbers of these limits in the database, once for each process.

    Args:
        tx: The caller's transaction, which may be rolled back.
    """
    new = {each.name: each for each in declared if engine.declared_limits.get(each.name) != each.numbers}
    if new and tx is not None:
        known = run_limits.declared(tx, new)
        as_declared = {name: limits.Numbers(*each.numbers) for name, each in new.items()}
        new = {
            name: each for name, each in new.items() if name not in known or known[name].numbers != as_declared[name]
        }
        _declare(tx, new)
    elif new:
        with engine.store.begin() as own:
            _declare(own, new)
        engine.declared_limits |= {name: each.numbers for name, each in new.items()}


def _declare(tx: Connection, new: Mapping[str, FlowLimit]) -> None:
    for name, each in sorted(new.items()):
        limits.declare(tx, name, limits.Numbers(*each.numbers), each.kind)


# Admission


def admit(engine: Engine, keys: Iterable[LimitKey]) -> None:
    """
    Admit the runs for which these keys have room, and send their first turns.

    Never raises: what cannot be done now, the sweep does.
    """
    admit_lines(keys, partial(_admit_some, engine), "runs")


def admit_lines(keys: Iterable[LimitKey], admit_some: Callable[[LimitKey], bool], what: str) -> None:
    """
    Admit what waits in these lines, batch by batch.  Never raises: what cannot be done now, the sweep does.

    Args:
        admit_some: Admits a batch of one line, and returns whether more can be admitted at once.
        what: What waits, for the log.
    """
    try:
        # First the lines in which those wait that have come from others.
        for key in sorted(set(keys), key=lambda each: (*each.rank, each.key), reverse=True):
            for _ in range(_ROUNDS):
                if not admit_some(key):
                    break
    except SQLAlchemyError as error:
        log.warning("The sweep admits %s that wait for limits (%s).", what, reason(error))


def _admit_some(engine: Engine, key: LimitKey) -> bool:
    """Admit at most ``BATCH`` runs of a key.  Return whether more can be admitted at once."""
    now = engine.store.now()
    sending = engine.dispatch.plan(now)
    admission = engine.store.write(partial(admit_runs.admit, key=key, now=now, sending=sending))
    engine.dispatch.send_turns(admission.drives)
    return is_due(engine, admission.again_at, now)


def is_due(engine: Engine, again_at: int | None, now: int) -> bool:
    """Return whether more can be admitted at once; see to it that a later time is not missed."""
    if again_at is not None and again_at > now and engine.on_due is not None:
        engine.on_due(again_at)
    return again_at is not None and again_at <= now


def has_limits(run: Run) -> bool:
    """Return whether a run may have limits: not if this process knows that its workflow has none."""
    workflow = registry.workflows.get(run.name)
    return workflow is None or bool(workflow.limits)


def admit_after(engine: Engine, run_id: str) -> None:
    """
    Admit the runs that follow on a run which has ended.

    Never raises: what cannot be done now, the sweep does.
    """
    try:
        with engine.store.read() as tx:
            states = run_limits.states_of(tx, run_id)
        admit(engine, [key for key, _ in states])
    except SQLAlchemyError as error:
        log.warning("The sweep admits the runs that follow on run %s (%s).", run_id, reason(error))


def admit_due(engine: Engine) -> int:
    """Admit the runs of all keys that are to be checked now.  Return how many keys there were."""
    with engine.store.read() as tx:
        keys = run_limits.keys_due(tx, engine.now(), KEYS)
    admit(engine, keys)
    return len(keys)


def may_begin(
    engine: Engine,
    run: Run,
    workflow: Workflow[..., object],
    created: events.RunCreated,
    requests: Mapping[str, Request],
) -> bool:
    """
    Return whether the first turn of a run may be taken now.

    A process that does not have the workflow may have started the run: then it gets its limits here.

    Raises:
        WorkflowCodeError: A key function raises, or a key is no text.  It blocks the run: corrected code goes on.
    """
    with engine.store.read() as tx:
        states = run_limits.states_of(tx, run.id)
    if states:
        return all(state in run_limits.HELD for _, state in states)
    try:
        found = of_call(workflow, created.args, requests)
    except Exception as error:
        names = ", ".join(limit.name for limit in workflow.limits)
        raise mistake_in_key(run.id, workflow, names, error) from error
    if not found:
        return True
    declare(engine, workflow.limits)
    try:
        engine.store.write(partial(_enter, run=run, found=found))
    except IntegrityError:
        # Another process has done so meanwhile.
        return False
    admit(engine, [each.key for each in found])
    return False


def _enter(tx: Connection, run: Run, found: Sequence[RunLimit]) -> None:
    run_limits.enter(tx, [(run, found)])
    run_limits.hold(tx, run.id)


def mistake_in_key(run_id: str, called: registry.Defined, limit: str, error: Exception) -> WorkflowCodeError:
    """Return the error that blocks a run because of the key of a limit."""
    summary = codec.error_summary(codec.encode_error(error))
    message = f"{summary.message} (the key of the limit {limit!r} of {called.noun} {called.name})"
    return WorkflowCodeError(run_id, summary.error_type, message, raising_line(error) or called.place)
