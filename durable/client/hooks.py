"""
Payloads for hooks, and answers to webhook requests.

A payload is committed to the run's inbox, then a turn is sent.  If the process crashes between the two, or the broker
is down, the sweep sends the turn later.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from .. import codec, context, duration, events, failpoints
from ..engine import Engine, NextCheck, Waiting, wait_in_loop, wait_in_thread
from ..errors import HookNotFound, HookPayloadError
from ..http import Request, Response
from ..sandbox import refuse_in_workflow
from ..store import DriveRow, hooks, requests, run_log, runs
from ..store import Hook as HookRow

_POLL_SECS = 0.05


@dataclass(frozen=True, slots=True)
class HookInfo:
    """An open hook, as ``get_hook`` returns it."""

    token: str
    run_id: str
    metadata: Any
    created_at: datetime
    is_webhook: bool


@dataclass(frozen=True, slots=True)
class Delivered:
    """A payload that is committed to a run's inbox."""

    hook: HookRow
    run: DriveRow
    item_id: int


def resume_hook(engine: Engine, token: str, payload: object, wait: Any = None, wait_taken: Any = None) -> str:
    """
    Put *payload* into the inbox of the run that holds this token open, and return the run's id.

    Returns once the payload is committed; without *wait_taken* the run may not have seen it yet.  Two calls deliver two
    payloads.

    Args:
        token: The hook's token.
        payload: Any value that has a JSON form (docs/reference/values.md).
        wait: How long to wait for a hook that is about to be created, as ``sleep`` takes it.
        wait_taken: How long to wait until a turn of the run has taken the payload in, as ``sleep`` takes it.  When the
            time is over, the call returns all the same: the payload is committed, and a turn will take it in.

    Raises:
        HookNotFound: No hook with this token is open.  Nothing is recorded.
        HookPayloadError: The payload does not fit the type of the hook.  Nothing is recorded.
        SerializationError: The payload has no JSON form.  Nothing is recorded.
    """
    refuse_in_workflow("resume_hook")
    return wait_in_thread(_resume_hook(engine, token, payload, wait, wait_taken))


async def aresume_hook(engine: Engine, token: str, payload: object, wait: Any = None, wait_taken: Any = None) -> str:
    """Do the same as ``resume_hook`` in an event loop."""
    refuse_in_workflow("aresume_hook")
    return await wait_in_loop(engine.threads, _resume_hook(engine, token, payload, wait, wait_taken))


def _resume_hook(engine: Engine, token: str, payload: object, wait: Any, wait_taken: Any) -> Waiting[str]:
    taken_secs = _secs(wait_taken, "wait_taken")
    deadline = time.monotonic() + _secs(wait, "wait")
    while (delivered := deliver(engine, token, payload)) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise HookNotFound(token)
        # Nothing notifies of a new hook.
        yield min(left, _POLL_SECS)
    run_id = delivered.run.run_id
    if taken_secs:
        until = time.monotonic() + taken_secs
        with engine.completions.expected(run_id) as taken:
            while (left := until - time.monotonic()) > 0 and _is_waiting(engine, delivered.item_id):
                yield NextCheck(taken, left)
    return run_id


def deliver(engine: Engine, token: str, payload: object) -> Delivered | None:
    """Commit a payload to the inbox of the run that holds this token open, and send a turn; None without a hook."""
    engine.check_schema()
    began_at = engine.now()

    def post(tx: Connection) -> Delivered | None:
        hook = hooks.lock_open(tx, token)
        if hook is None:
            return None
        if hook.config is not None and not isinstance(payload, Request):
            raise HookPayloadError(hook.token, [{"loc": (), "msg": "a webhook takes a durable.Request"}])
        # A process that knows the hook's type checks the payload against it.
        definition = context.definitions.get(hook.name)
        text = codec.encode(payload if definition is None else definition.validate(hook.token, payload), "payload")
        now = engine.store.now()
        received = events.HookReceived(at=now, op_id=hook.op_id, payload=text)
        item_id = run_log.post(tx, hook.run_id, received, engine.dispatch.plan(now))
        (run,) = run_log.drives(tx, [hook.run_id])
        return Delivered(hook, run, item_id)

    delivered = engine.store.write(post)
    if delivered is None:
        return None
    failpoints.hit("hook.recorded")
    run = delivered.run
    engine.wake(run)
    if engine.tracing.is_on:
        carried = runs.trace_context(engine.store.vault, run.run_id, run.trace_context)
        engine.tracing.resumed(run.run_id, delivered.hook.op_id, carried, began_at, engine.now())
    return delivered


def _secs(given: Any, what: str) -> float:
    return 0 if given is None else duration.to_micros(given, what=what) / 1_000_000


def _is_waiting(engine: Engine, item_id: int) -> bool:
    with engine.store.read() as tx:
        return run_log.is_in_inbox(tx, item_id)


def get_hook(engine: Engine, token: str) -> HookInfo:
    """Return an open hook.  Raise HookNotFound when no hook with this token is open."""
    refuse_in_workflow("get_hook")
    engine.check_schema()
    with engine.store.read() as tx:
        hook = hooks.find(tx, token)
        if hook is None or not hook.open:
            raise HookNotFound(token)
        metadata = hooks.metadata_of(tx, hook)
        loaded = requests.load(tx, codec.request_ids(metadata or ""))
    return HookInfo(
        token=hook.token,
        run_id=hook.run_id,
        metadata=None if metadata is None else codec.decode(metadata, loaded),
        created_at=duration.to_datetime(hook.created_at),
        is_webhook=hook.config is not None,
    )


def respond(engine: Engine, request_id: str, response: Response) -> bool:
    """Answer a webhook request from outside a step.  Return False when it has an answer already."""
    with engine.store.begin() as tx:
        holder = requests.answer(tx, request_id, response, engine.store.now())
    if holder is None:
        return False
    failpoints.hit("response.recorded")
    engine.notify(holder, request_id)
    return True
